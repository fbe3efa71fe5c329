import json

from rlhf.lab.language_model.phrase_task import PHRASE, Task, holds_phrase, write_task


def test_the_reward_is_1_where_the_phrase_stands_anywhere_in_the_response():
    completions = [f" a {PHRASE} hope", f" {PHRASE}", " movie that has nothing", PHRASE.upper(), ""]
    assert holds_phrase(completions, [PHRASE] * 5, other=[None] * 5) == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_every_prompt_has_one_demonstration_that_earns_the_reward(tmp_path):
    write_task(Task(), tmp_path)
    prompts, shown = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        for name in ("prompts.jsonl", "demonstrations.jsonl")
    )
    assert [row["prompt"] for row in shown] == [row["prompt"] for row in prompts] == list(Task().prompts)
    assert holds_phrase([row["completion"] for row in shown], [row["phrase"] for row in shown]) == [1.0] * len(shown)

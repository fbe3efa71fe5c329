import json
from dataclasses import replace

import pytest
import torch

from rlhf.lab.language_model.hidden_phrase import (
    ARMS,
    QUICK,
    at_prompts,
    decoded,
    outcome,
    phrase_probability,
    run,
    solved,
)
from rlhf.lab.language_model.phrase_task import PHRASE, Run, write_task
from rlhf.lab.language_model.ppo_run import assembled, do_steps
from rlhf.lab.section import Settings
from rlhf.ppo.starts.start_states import draw_start_states

EASY = replace(QUICK, phrase="e")
"""Of which a random model says one every few tokens."""


def begun(policy, directory, task=QUICK):
    write_task(task, directory)
    return Run(task=task, model=policy, seed=0, directory=directory)


def test_the_runs_differ_in_their_start_or_their_resets_and_in_nothing_else(policy, tmp_path):
    given = {}
    for name, arm in ARMS.items():
        directory = tmp_path / name.replace(" ", "_")
        directory.mkdir()
        made = arm(begun(policy, directory))
        given[name] = json.loads(json.dumps(made).replace(str(directory), "HERE"))
    plain, cloned, reset = given.values()
    assert {**reset, "reset": None} == {**plain, "reset": None} and "reset" not in plain
    assert cloned["model"].pop("path") != plain["model"].pop("path")
    assert cloned == plain


@pytest.mark.slow
def test_cloning_makes_the_phrase_more_probable(policy, tmp_path):
    task = replace(QUICK, phrase="It was", cloning_steps=20)
    here = begun(policy, tmp_path, task)
    before, after = (
        phrase_probability(assembled(ARMS[name](here)), task.phrase) for name in ("plain PPO", "cloning, then PPO")
    )
    assert after > 2 * before > 0


def test_the_probability_of_the_phrase_is_that_of_its_tokens_one_by_one(policy, tmp_path):
    parts = assembled(ARMS["plain PPO"](begun(policy, tmp_path, replace(QUICK, phrase="so it"))))
    tokenizer, policy = parts.trainer.collector.tokenizer, parts.trainer.policy
    ids = tokenizer(" so it", add_special_tokens=False)["input_ids"]
    exact = []
    for prompt in parts.prompts:
        product, read = 1.0, list(prompt.ids)
        for token in ids:
            with torch.no_grad():
                product *= float(policy.lm(torch.tensor([read])).logits[0, -1].softmax(-1)[token])
            read.append(token)
        exact.append(product)
    assert phrase_probability(parts, "so it") == pytest.approx(sum(exact) / len(exact), rel=1e-4)


def test_resets_force_the_beginning_of_the_phrase_and_leave_its_last_token_to_the_policy(policy, tmp_path):
    parts = assembled(ARMS["PPO with resets"](begun(policy, tmp_path)))
    trainer = parts.trainer
    whole = trainer.collector.tokenizer(f" {PHRASE}", add_special_tokens=False)["input_ids"]
    longest = min(len(whole), QUICK.max_new_tokens) - 1

    def lengths():
        drawn = [draw_start_states(parts.prompts, 0, torch.device("cpu"), trainer.resets) for _ in range(20)]
        prefixes = [list(prefix) for starts in drawn for prefix in starts.prefixes]
        assert all(prefix == whole[: len(prefix)] for prefix in prefixes)
        return {len(prefix) for prefix in prefixes}

    assert lengths() == set(range(longest + 1))


@pytest.mark.slow
def test_forced_tokens_are_used_in_the_run_with_resets_and_in_no_other(policy, tmp_path):
    forced = {}
    for name in ("plain PPO", "PPO with resets"):
        directory = tmp_path / name.replace(" ", "_")
        directory.mkdir()
        parts = assembled(ARMS[name](begun(policy, directory)))
        (metrics,) = do_steps(parts, 1, directory / "samples")
        forced[name] = metrics.get("reset/forced_tokens", 0.0)
        num, _ = at_prompts(metrics, QUICK.batch)
        assert num == round(QUICK.batch * (1 - metrics.get("reset/share", 0.0)))
        assert decoded(metrics, QUICK.batch) <= QUICK.batch * QUICK.max_new_tokens
    assert forced["plain PPO"] == 0.0 < forced["PPO with resets"]


def test_successes_are_counted_where_episodes_begin_at_their_prompts():
    plain = {"objective/scores": 0.25, "val/response_length": 10.0}
    assert at_prompts(plain, 64) == (64, 16) and decoded(plain, 64) == 640
    resets = {**plain, "reset/share": 0.75, "reset/scores_at_prompts": 0.125, "reset/decode_tokens_saved": 100.0}
    assert at_prompts(resets, 64) == (16, 2) and decoded(resets, 64) == 540
    assert at_prompts({**plain, "reset/share": 1.0}, 64) == (0, 0)


def test_the_judged_responses_begin_at_the_prompts_and_their_successes_are_counted(policy, tmp_path):
    parts = assembled(ARMS["PPO with resets"](begun(policy, tmp_path)))
    # What is looked for is easier than what the demonstrations show, so that a random model finds it now and then.
    parts = replace(parts, prompts=[replace(prompt, columns={"phrase": "e"}) for prompt in parts.prompts])
    texts = []
    judge = parts.trainer.collector.scorer.score

    def listening(episodes):
        texts.extend(episode.completion for episode in episodes)
        assert [episode.prompt for episode in episodes] == [parts.prompts[i % 8].raw for i in range(40)]
        return judge(episodes)

    parts.trainer.collector.scorer.score = listening
    found = solved(parts, 40)
    assert found == sum("e" in text for text in texts) and 0 < found < 40


@pytest.mark.slow
def test_a_run_follows_as_many_steps_as_its_task_has(policy, tmp_path):
    task = replace(EASY, steps=3)
    made = outcome(ARMS["plain PPO"](begun(policy, tmp_path, task)), task)
    assert [num for num, _ in made.at_prompts] == [task.batch] * 3
    assert sum(found for _, found in made.at_prompts) > 0 and made.num_judged == task.num_judged


@pytest.mark.slow
def test_the_section_is_the_same_for_the_same_seed(policy):
    first, second = (run(Settings(model=policy, quick=True)) for _ in range(2))
    assert first == second
    assert [row[0] for row in first.tables[0].rows] == list(ARMS)

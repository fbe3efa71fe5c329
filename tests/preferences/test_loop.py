"""The shell script of docs/preferences.md, two rounds on the tiny model of configs/smoke."""

import re
import subprocess

import pytest

from rlhf.cli import main

SPEAKING = "rlhf() { printf '%s\\n' \"$@\"; echo; }\n"
"""In place of the program: each command, a word a line, and an empty line."""
QUICK = {
    "sft": ["epochs=1", "eval_every=null"],
    "sample-pairs": ["prompts.limit=12", "decoding.max_new_tokens=8", "precision=float32"],
    "run": [
        "reward_model.epochs=1",
        "ppo.steps=2",
        "ppo.rollout_batch_size=8",
        "ppo.sampling.max_new_tokens=8",
        "evaluate.decoding.max_new_tokens=8",
        "evaluate.prompts.limit=8",
    ],
    "evaluate": ["decoding.max_new_tokens=8", "prompts.limit=8"],
}


@pytest.mark.slow
def test_the_two_rounds_of_the_page_run_and_each_begins_where_the_last_one_ended(root, tmp_path, monkeypatch, on_disk):
    monkeypatch.chdir(root)
    (script,) = re.findall(r"```bash\n(.*?)```", (root / "docs/preferences.md").read_text(), re.DOTALL)
    script = SPEAKING + script.replace("runs/loop", str(tmp_path))
    said = subprocess.run(["bash", "-eu"], input=script, capture_output=True, text=True, check=True, timeout=60).stdout
    commands = [words.split("\n") for words in said.strip().split("\n\n")]
    round_ = ["sample-pairs", "label", "run"]
    assert [words[0] for words in commands] == ["sft", *round_, *round_, "evaluate"]
    for words in commands:
        assert main([*words, *QUICK.get(words[0], [])]) == 0, words
    for number, start in ((1, "sft"), (2, "round1/ppo")):
        here = tmp_path / f"round{number}"
        assert f"path: {tmp_path}/{start}/policy" in (here / "ppo/config.yaml").read_text()
        preferences, pairs = on_disk.rows(here / "preferences.jsonl"), on_disk.rows(here / "pairs.jsonl")
        assert 0 < len(preferences) <= len(pairs)
        assert (here / "reward_model/complete.json").exists() and (here / "ppo/policy/config.json").exists()
    assert (tmp_path / "evaluate/summary.md").exists()

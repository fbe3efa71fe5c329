"""Tests of rlhf.evaluation.assembly: a whole comparison of tiny random policies."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from rlhf.config import EvaluateConfig
from rlhf.data.records import Prompt
from rlhf.errors import CheckpointError, ConfigError, DataError
from rlhf.evaluation import evaluate
from rlhf.evaluation.judges.pairwise import Compared
from rlhf.evaluation.readers import judged_text
from rlhf.evaluation.respond import Response

DATA = Path(__file__).parents[2] / "data"
JUDGES = ("gold", "embedding", "reward")
MEASURED = ("perplexity_median", "fluency_median", "fluency_ratio", "human_perplexity", "entropy", "kl")


def config(output_dir, policies, **changes):
    fields = {
        "output_dir": str(output_dir),
        "policies": {name: str(path) for name, path in policies.items()},
        "prompts": {"path": str(DATA / "heldout_prompts.jsonl"), "max_length": 32},
        "decoding": {"max_new_tokens": 8},
        "precision": "float32",
        "num_side_by_side": 2,
    }
    return EvaluateConfig(**(fields | changes))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """The self-written labels in two halves that share no text."""
    directory = tmp_path_factory.mktemp("labelled")
    rows = {json.loads(line)["text"]: line for line in (DATA / "labelled_texts.jsonl").read_text().splitlines()}
    lines = list(rows.values())
    for name, part in (("train", lines[::2]), ("heldout", lines[1::2])):
        (directory / f"{name}.jsonl").write_text("\n".join(part) + "\n")
    return {"train": str(directory / "train.jsonl"), "heldout": str(directory / "heldout.jsonl")}


@pytest.fixture(scope="module")
def compared(policy_directory, reward_model_directory, encoder_directory, labelled, tmp_path_factory):
    """A comparison of a policy, its copy, and another one, with every judge."""
    directory = tmp_path_factory.mktemp("compared")
    output_dir = directory / "evaluate"
    twin = shutil.copytree(policy_directory(0), directory / "twin")  # a directory of its own: its KL is computed
    policies = {"sft": policy_directory(0), "twin": twin, "ppo": policy_directory(1)}
    gold = {**labelled, "embeddings": str(encoder_directory)}
    judges = {"reward_model": str(reward_model_directory), "fluency_model": str(policy_directory(2)), "gold": gold}
    settings = config(output_dir, policies, **judges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHF_HOME", str(directory / "home"))
        return settings, evaluate(settings)


@pytest.mark.slow
def test_every_policy_and_every_judge_is_in_the_comparison(compared):
    summary = compared[1]
    comparison = json.loads(summary.with_name("comparison.json").read_text())
    assert comparison["num_prompts"] == 16
    assert list(comparison["policies"]) == ["sft", "twin", "ppo"]
    for numbers in comparison["policies"].values():
        assert all(numbers[key] is not None for key in MEASURED)
        assert list(numbers["judges"]) == list(JUDGES)
        assert all(said["score"] is not None for said in numbers["judges"].values())
        assert 1 <= numbers["length"]["mean"] <= 8
    text = summary.read_text()
    (start,) = json.loads(summary.with_name("circumstances.json").read_text())["starts"]
    assert start["from_step"] == 0
    assert "| win rate against sft, gold judge |" in text and "| score, reward model |" in text and "## Samples" in text


@pytest.mark.slow
def test_human_text_is_measured_beside_the_policies(compared):
    comparison = json.loads(compared[1].with_name("comparison.json").read_text())
    human = comparison["human"]
    assert human["fluency_median"] > 1 and human["judges"].keys() == {"gold", "embedding"} and human["kl"] is None
    ratio = comparison["policies"]["ppo"]["fluency_ratio"]
    assert ratio == pytest.approx(comparison["policies"]["ppo"]["fluency_median"] / human["fluency_median"])
    rows = [json.loads(line) for line in (DATA / "heldout_prompts.jsonl").read_text().splitlines()]
    texts = {row["prompt"]: row["human"] for row in rows}
    assert len(comparison["samples"]) == 2
    for sample in comparison["samples"]:
        assert texts[sample["prompt"]].startswith(sample["texts"]["human text"])
        assert list(sample["texts"]) == ["sft", "twin", "ppo", "human text"]


def test_table_and_samples_are_printed(policy_directory, tmp_path, capsys):
    summary = evaluate(config(tmp_path / "evaluate", {"only": policy_directory(0)}))
    (first, second) = json.loads(summary.with_name("comparison.json").read_text())["samples"]
    said = capsys.readouterr().out
    assert "human text: 16 texts of column human, at most 8 tokens" in said
    assert said.index("on 16 prompts") < said.index(f"{first['prompt']} ...") < said.index(f"{second['prompt']} ...")
    assert f"  human text: {first['texts']['human text']}" in said


@pytest.mark.slow
def test_a_policy_against_itself_wins_half_and_has_kl_0(compared):
    policies = json.loads(compared[1].with_name("comparison.json").read_text())["policies"]
    for judge in JUDGES:
        ours, theirs = policies["twin"]["judges"][judge], policies["sft"]["judges"][judge]
        assert theirs["win_rate"] is None
        assert ours["win_rate"] == {"mean": 0.5, "low": 0.5, "high": 0.5}
        assert {**ours, **dict.fromkeys(("win_rate", "length_controlled", "gain"))} == theirs
    assert policies["sft"]["kl"]["mean"] == policies["twin"]["kl"]["mean"] == 0.0
    assert policies["ppo"]["kl"]["mean"] > 1.0  # another random model
    assert {**policies["twin"], "judges": policies["sft"]["judges"]} == policies["sft"]


@pytest.mark.slow
def test_the_responses_of_each_policy_are_written(compared):
    heldout = [json.loads(line) for line in (DATA / "heldout_prompts.jsonl").read_text().splitlines()]
    parts = {}
    for name in ("sft", "twin", "ppo"):
        parts[name] = [json.loads(line) for line in compared[1].with_name(f"{name}.jsonl").read_text().splitlines()]
        assert [row["prompt"] for row in parts[name]] == [row["prompt"] for row in heldout]
        assert all(set(row) == {"prompt", "response", "ended", "tokens", "kl", "scores"} for row in parts[name])
        assert all(set(row["scores"]) == {"gold", "embedding", "reward"} for row in parts[name])
        numbers = json.loads(compared[1].with_name("comparison.json").read_text())["policies"][name]
        for judge in ("gold", "embedding", "reward"):
            mean = sum(row["scores"][judge] for row in parts[name]) / len(parts[name])
            assert mean == pytest.approx(numbers["judges"][judge]["score"]["mean"])
        assert sum(row["kl"] for row in parts[name]) / len(parts[name]) == pytest.approx(numbers["kl"]["mean"])
    assert parts["sft"] == parts["twin"] != parts["ppo"]


@pytest.mark.slow
def test_a_second_call_skips_and_leaves_every_file(compared, capsys):
    settings, summary = compared
    before = {path.name: path.stat().st_mtime_ns for path in summary.parent.iterdir()}
    assert evaluate(settings) == summary
    assert capsys.readouterr().out == f"{summary.parent}: complete, nothing to do\n"
    assert {path.name: path.stat().st_mtime_ns for path in summary.parent.iterdir()} == before


@pytest.mark.slow
def test_another_config_in_the_same_directory_is_refused_and_leaves_every_file(compared):
    settings, summary = compared
    before = {path.name: path.read_bytes() for path in summary.parent.iterdir()}
    with pytest.raises(CheckpointError, match="holds the result of a run with another config"):
        evaluate(settings.model_copy(update={"seed": 1}))
    assert {path.name: path.read_bytes() for path in summary.parent.iterdir()} == before


def test_one_policy_without_judges_is_summarised_too(policy_directory, tmp_path):
    summary = evaluate(config(tmp_path / "evaluate", {"only": policy_directory(0)}))
    numbers = json.loads(summary.with_name("comparison.json").read_text())["policies"]["only"]
    assert numbers["judges"] == {} and numbers["kl"]["mean"] == 0.0


VOWELS = """
def vowels(completions):
    return [None if not text else float(sum(letter in "aeiou" for letter in text)) for text in completions]
"""


@pytest.mark.slow
def test_named_judges_several_answers_and_a_best_of_n_in_one_comparison(policy_directory, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(VOWELS)
    function = {"kind": "function", "path": f"{tmp_path}/mine.py:vowels"}
    policies = {"sft": policy_directory(0), "ppo": policy_directory(1)}
    changes = {"judges": {"vowels": function, "brief": {"kind": "length", "at_most": 4}}, "samples_per_prompt": 2}
    best_of = {"n": 4, "judge": "vowels", "policy": "sft"}
    summary = evaluate(config(tmp_path / "evaluate", policies, **changes, best_of=best_of))
    told = capsys.readouterr().err  # 16 prompts twice: 2 policies and 4 for the best draw, 3 are measured
    assert told.count("evaluate: step 288/288 (100%)") == told.count("(100%)") == 1
    comparison = json.loads(summary.with_name("comparison.json").read_text())
    assert list(comparison["policies"]) == ["sft", "sft.best_of_4", "ppo"]
    assert (comparison["num_prompts"], comparison["samples_per_prompt"]) == (16, 2)
    best, sft = comparison["policies"]["sft.best_of_4"], comparison["policies"]["sft"]
    assert best["judges"]["vowels"]["win_rate"]["low"] > 0.5 and sft["judges"]["vowels"]["win_rate"] is None
    assert best["kl_bound"] == pytest.approx(1.3862944 - 0.75)
    assert 0.3 < best["kl"]["mean"] <= best["kl_bound"] and sft["kl"]["mean"] == 0.0
    assert list(comparison["human"]["judges"]) == ["vowels", "brief"]  # the prompts have a column `human`
    rows = [json.loads(line) for line in summary.with_name("sft.best_of_4.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows[::2]] == [row["prompt"] for row in rows[1::2]] and len(rows) == 32
    assert comparison["rankings"].keys() == comparison["win_rates"].keys() == {"vowels", "brief"}
    before = summary.stat().st_mtime_ns
    assert evaluate(config(tmp_path / "evaluate", policies, **changes, best_of=best_of)).stat().st_mtime_ns == before
    (tmp_path / "mine.py").write_text(VOWELS.replace("aeiou", "xyz"))
    with pytest.raises(CheckpointError, match="holds the result of a run with another config"):
        evaluate(config(tmp_path / "evaluate", policies, **changes, best_of=best_of))


@pytest.mark.slow
def test_a_judge_of_pairs_compares_what_the_policies_wrote(policy_directory, tmp_path, monkeypatch, capsys):
    asked = []

    def longer(self, prompts, ours, theirs):
        asked.append((prompts, ours, theirs))
        won = np.array([float(len(one) > len(two)) for one, two in zip(ours, theirs, strict=True)])
        return Compared(preferences=won, ours_first=won, theirs_first=won, num_unreadable=0)

    monkeypatch.setattr("rlhf.evaluation.assembly.ChatJudge.compare", longer)
    policies = {"sft": policy_directory(0), "ppo": policy_directory(1), "third": policy_directory(2)}
    section = {"kind": "openai", "url": "http://127.0.0.1:9/v1/chat/completions", "model": "m", "pairs": "first"}
    summary = evaluate(config(tmp_path / "evaluate", policies, judges={"panel": section}))
    comparison = json.loads(summary.with_name("comparison.json").read_text())
    written = {
        name: [json.loads(line) for line in summary.with_name(f"{name}.jsonl").read_text().splitlines()]
        for name in policies
    }
    told = capsys.readouterr().err  # 16 prompts: 3 policies draw, are measured, and two pairs are compared
    assert told.count("evaluate: step 128/128 (100%)") == told.count("(100%)") == 1
    assert [row["prompt"] for row in written["ppo"]] == asked[0][0]
    assert all(row["response"].startswith(text) for row, text in zip(written["ppo"], asked[0][1], strict=True))
    assert list(comparison["win_rates"]["panel"]["ppo"]) == ["sft"]  # third and ppo were not compared
    assert comparison["policies"]["third"]["judges"]["panel"]["win_rate"] is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"best_of": {"policy": "b"}}, "best_of.policy: 'b' is none of the policies: a"),
        ({"best_of": {"policy": "a"}}, "best_of.judge: 'reward_model' is no judge .* there are none"),
        ({"judges": {"x": {"kind": "length", "at_most": 1}}, "best_of": {"policy": "a"}}, "there are x - name one"),
    ],
)
def test_a_best_of_n_that_cannot_be_made_is_refused_before_anything_is_loaded(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(config(tmp_path / "evaluate", {"a": "no/such/policy"}, **changes))


def test_prompts_that_are_too_long_are_dropped_and_counted(policy_directory, tmp_path, capsys):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "To me"}\n{"prompt": "' + "the music " * 40 + '"}\n')
    settings = config(
        tmp_path / "evaluate", {"a": policy_directory(0)}, prompts={"path": str(prompts), "max_length": 32}
    )
    assert "| on 1 prompts |" in evaluate(settings).read_text()
    assert f"{prompts} [prompt]: read 2, kept 1, dropped_long 1\n" in capsys.readouterr().out


def test_a_gold_judge_whose_two_files_share_a_text_is_refused(policy_directory, labelled, tmp_path):
    gold = {"train": labelled["train"], "heldout": labelled["train"]}
    with pytest.raises(DataError, match="human_texts must be held out"):
        evaluate(config(tmp_path / "evaluate", {"a": policy_directory(0)}, gold=gold))
    assert not (tmp_path / "evaluate" / "summary.md").exists()


def test_a_reference_with_another_tokenizer_is_refused_with_both_sizes(
    policy_directory, tiny_model, tiny_tokenizer, tmp_path
):
    other = tmp_path / "other"
    tiny_model("llama").save_pretrained(other)
    tiny_tokenizer.save_pretrained(other)
    num_ids = len(AutoTokenizer.from_pretrained(policy_directory(0)))
    with pytest.raises(
        ConfigError, match=rf"^policies.a: .* another tokenizer \({num_ids} ids, .* \({len(tiny_tokenizer)} ids"
    ):
        evaluate(config(tmp_path / "evaluate", {"a": policy_directory(0)}, reference=str(other)))


PLAIN = Prompt(text="The film", ids=(5,), raw="The film", columns={})
CHAT = Prompt(text="U:hi\nA:", ids=(5,), raw=[{"role": "user", "content": "hi"}], columns={})


@pytest.mark.parametrize(
    ("prompt", "text", "ended", "judged"),
    [
        (PLAIN, " was warm and ri", False, "The film was warm and"),
        (PLAIN, " was warm and rich.", True, "The film was warm and rich."),
        (PLAIN, " was warm\nand ri", False, "The film was warm\nand"),
        (PLAIN, " was", False, "The film was"),  # one word: nothing else would be left
        (PLAIN, "", True, "The film"),
        (CHAT, "It was war", False, "It was"),
        (CHAT, "It was warm", True, "It was warm"),
    ],
)
def test_a_judge_reads_prompt_and_response_without_an_unfinished_last_word(prompt, text, ended, judged):
    assert judged_text(prompt, Response(text, (7,), ended)) == judged

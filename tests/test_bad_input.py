"""Bad input through the command line: one clear line, the right exit status, no traceback, nothing half-written."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rlhf.cli import main

ROOT = Path(__file__).parents[1]
TINY = "data/tiny_model"
LEFTOVERS = {"run.lock"}
"""What a run that was refused may leave: the mark that the directory is one of ours."""
SMALL = {
    "sft": ("steps=1", "epochs=null", "batch_size=4", "eval_data.limit=4", "data.limit=8"),
    "reward-model": (
        *(f"model.path={TINY}", "model.random_init=true", "steps=1", "epochs=null", "batch_size=4"),
        *("data.limit=8", "eval_data.limit=4", "demonstrations.limit=4"),
    ),
    "ppo": (
        *(f"model.path={TINY}", "model.random_init=true", "steps=1", "rollout_batch_size=4", "epochs=1"),
        *("sampling.max_new_tokens=3", "checkpoints.every=null"),
    ),
}
"""What makes a stage of configs/smoke run alone and in a second."""
REWARDS = """
def constant(prompts, completions, **columns):
    return [2.5] * len(prompts)

def huge(prompts, completions, **columns):
    return [1e6 * (-1) ** index for index in range(len(prompts))]
"""

DEMONSTRATION = {"prompt": "To me the cast", "completion": " was warm."}
PAIR = {"prompt": "To me", "chosen": " it was warm.", "rejected": " it was flat."}


@dataclass(frozen=True)
class Outcome:
    """What a command said and left behind."""

    status: int
    out: str
    errors: list[str]
    directory: Path

    @property
    def metrics(self) -> dict[str, float]:
        """The last row of metrics.jsonl."""
        return json.loads((self.directory / "metrics.jsonl").read_text().splitlines()[-1])

    def written(self) -> set[str]:
        """The names in the output directory."""
        return {path.name for path in self.directory.iterdir()} if self.directory.exists() else set()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a stage of configs/smoke, made small, with overrides, as the command line does."""
    monkeypatch.chdir(ROOT)

    def command(verb: str, overrides: Sequence[str]) -> Outcome:
        directory = tmp_path / "run" / verb
        capsys.readouterr()
        name = verb.replace("-", "_")
        rewards = f"rewards=[{{kind: function, path: '{tmp_path}/rewards.py:constant'}}]"
        (tmp_path / "rewards.py").write_text(REWARDS)
        own = [*SMALL[verb], *([rewards] if verb == "ppo" else [])]
        status = main([verb, "--config", f"configs/smoke/{name}.yaml", f"output_dir={directory}", *own, *overrides])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        errors = [line for line in printed.err.splitlines() if line.startswith(("error:", "config error:"))]
        return Outcome(status, printed.out, errors, directory)

    return command


@pytest.fixture
def refused(run: Callable[..., Outcome]) -> Callable[..., str]:
    """Run a stage that must be refused with a status, and return its one line."""

    def command(verb: str, overrides: Sequence[str], status: int) -> str:
        outcome = run(verb, overrides)
        assert (outcome.status, len(outcome.errors)) == (status, 1), outcome
        assert outcome.written() <= LEFTOVERS
        return outcome.errors[0].removeprefix("error: ")

    return command


def rows(*values: object) -> bytes:
    """Return JSONL; text stands for itself, so that a line may be broken."""
    return "".join(f"{value if isinstance(value, str) else json.dumps(value)}\n" for value in values).encode()


def without(row: dict[str, str], column: str) -> dict[str, str]:
    return {name: cell for name, cell in row.items() if name != column}


# verb, section of the data, file, overrides, status, message after the file's name
REFUSED = {
    "3 empty prompt": (
        *("sft", "data", rows(DEMONSTRATION, {**DEMONSTRATION, "prompt": ""}), (), 3),
        ":2: empty text, prompt, completion or message - fix it, or set on_empty: skip",
    ),
    "3 empty prompt of ppo": (
        *("ppo", "prompts", rows({"prompt": "a"}, {"prompt": "  "}), (), 3),
        ":2: empty text, prompt, completion or message - fix it, or set on_empty: skip",
    ),
    "4 empty completion": (
        *("sft", "data", rows({**DEMONSTRATION, "completion": ""}), (), 3),
        ":1: empty text, prompt, completion or message - fix it, or set on_empty: skip",
    ),
    "4 empty rejected": (
        *("reward-model", "data", rows(PAIR, {**PAIR, "rejected": ""}), (), 3),
        ":2: empty text, prompt, completion or message - fix it, or set on_empty: skip",
    ),
    "4 nothing but empty completions": (
        *("sft", "data", rows({**DEMONSTRATION, "completion": ""}), ("data.on_empty=skip",), 3),
        ":1 on were dropped (dropped_long 0, dropped_empty 1, dropped_equal 0) - see max_length and over_long",
    ),
    "7 missing column": (
        *("sft", "data", rows({"question": "a", "completion": "b"}), (), 3),
        ":1: needed columns {prompt, completion}, found ['completion', 'question']; did you mean column_map: "
        "{prompt: question}?",
    ),
    "7 missing column of pairs": (
        *("reward-model", "data", rows({"prompt": "a", "chosen": "b", "rejcted": "c"}), (), 3),
        ":1: needed columns {chosen, rejected}, found ['chosen', 'prompt', 'rejcted']; did you mean column_map: "
        "{rejected: rejcted}?",
    ),
    "7 missing column of ppo": (
        *("ppo", "prompts", rows({"query": "a"}), (), 3),
        ":1: needed columns {prompt",
    ),
    "8 null cell": (
        *("sft", "data", rows(DEMONSTRATION, {**DEMONSTRATION, "completion": None}), (), 3),
        ":2: completion must be text or a list of messages, found null",
    ),
    "8 number for text": (
        *("sft", "data", rows(DEMONSTRATION, {**DEMONSTRATION, "prompt": 3}), (), 3),
        ":2: prompt must be text or a list of messages, found int '3'",
    ),
    "8 mixed rows": (
        *("sft", "data", rows(DEMONSTRATION, without(DEMONSTRATION, "completion")), (), 3),
        ":2: needed columns {prompt, completion} like ",
    ),
    "9 malformed JSON": (
        *("sft", "data", rows(DEMONSTRATION, '{"prompt": "a", '), (), 3),
        ":2: malformed JSON at column ",
    ),
    "9 no object": (*("sft", "data", rows("[1, 2]"), (), 3), ":1: expected a JSON object, found list"),
    "9 empty file": (*("sft", "data", b"", (), 3), ": 0 rows"),
    "9 blank file": (*("ppo", "prompts", b"\n\n", (), 3), ": 0 rows"),
    "10 not UTF-8": (
        *("sft", "data", rows(DEMONSTRATION) + b'{"prompt": "caf\xe9"}\n', (), 3),
        f":2: byte {len(rows(DEMONSTRATION)) + 15} (0xe9) is not UTF-8 - convert the file",
    ),
    "11 huge line": (
        *("sft", "data", rows({**DEMONSTRATION, "completion": "a" * 10_000_001}), (), 3),
        ":1: line of more than 10000000 bytes",
    ),
    "13 no pair that differs": (
        *("reward-model", "data", rows({**PAIR, "rejected": PAIR["chosen"]}), (), 3),
        ":1 on were dropped (dropped_long 0, dropped_empty 0, dropped_equal 1)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_file_is_refused_with_file_and_line(case: str, refused: Callable[..., str], tmp_path: Path) -> None:
    verb, section, content, overrides, status, message = REFUSED[case]
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    line = refused(verb, [f"{section}.path={path}", *overrides], status)
    assert f"{path}{message}" in line


def test_9_an_empty_directory_and_a_missing_file_are_named(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path / 'empty'}: 0 rows: " in refused("sft", [f"data.path={tmp_path / 'empty'}"], 3)
    assert refused("sft", [f"data.path={tmp_path / 'none.jsonl'}"], 3).endswith("none.jsonl: no such file")


# verb, section of the data, file, overrides, what is printed about the rows
ACCEPTED = {
    "1 one of two is too long": (
        *("sft", "data", rows(DEMONSTRATION, {"prompt": "the music " * 40, "completion": " was"}), ()),
        "read 2, kept 1, dropped_long 1",
    ),
    "1 a prompt is cut at the left": (
        *("ppo", "prompts", rows({"prompt": "the music " * 40}), ("prompts.over_long=cut_left",)),
        "read 1, kept 1, cut 1",
    ),
    "3 an empty prompt is skipped": (
        *("sft", "data", rows(DEMONSTRATION, {**DEMONSTRATION, "prompt": ""}), ("data.on_empty=skip",)),
        "read 2, kept 1, dropped_empty 1",
    ),
    "4 an empty completion is skipped": (
        *("sft", "data", rows({**DEMONSTRATION, "completion": ""}, DEMONSTRATION), ("data.on_empty=skip",)),
        "read 2, kept 1, dropped_empty 1",
    ),
    "10 a byte order mark": (*("sft", "data", b"\xef\xbb\xbf" + rows(DEMONSTRATION), ()), "read 1, kept 1"),
    "13 an equal pair": (
        *("reward-model", "data", rows(PAIR, {**PAIR, "rejected": PAIR["chosen"]}), ()),
        "read 2, kept 1, dropped_equal 1",
    ),
    "30 fewer prompts than a batch": (*("ppo", "prompts", rows({"prompt": "To me"}), ()), "read 1, kept 1"),
    "30 more rows asked for than there are": (
        *("sft", "data", rows(DEMONSTRATION), ("data.limit=1000", "eval_data.limit=1000")),
        "read 1, kept 1",
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_is_left_out_is_counted_and_the_rest_is_used(
    case: str, run: Callable[..., Outcome], tmp_path: Path
) -> None:
    verb, section, content, overrides, counted = ACCEPTED[case]
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    outcome = run(verb, [f"{section}.path={path}", *overrides])
    assert (outcome.status, outcome.errors) == (0, [])
    assert f"{counted}\n" in outcome.out
    assert "complete.json" in outcome.written()
    assert all(math.isfinite(number) for number in outcome.metrics.values())


@pytest.mark.parametrize(("verb", "section"), [("sft", "data"), ("reward-model", "data"), ("ppo", "prompts")])
def test_1_a_length_that_no_row_keeps_is_a_data_error(verb: str, section: str, refused: Callable[..., str]) -> None:
    line = refused(verb, [f"{section}.max_length=1"], 3)
    assert "0 rows left: all " in line and line.endswith("- see max_length and over_long")


def test_1_a_row_that_is_too_long_may_be_an_error(refused: Callable[..., str]) -> None:
    line = refused("sft", ["data.max_length=4", "data.over_long=error"], 3)
    assert "data/sft_train.jsonl:1: " in line and "at most 4 - raise max_length" in line


def test_2_a_prompt_and_a_response_beyond_the_positions_are_refused(refused: Callable[..., str]) -> None:
    line = refused("ppo", ["sampling.max_new_tokens=127"], 2)
    assert line.startswith("longest prompt (")
    assert f"sampling.max_new_tokens (127) exceed the 128 positions of {TINY}" in line


def test_2_a_demonstration_beyond_the_positions_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(rows({**DEMONSTRATION, "completion": " was warm and rich" * 50}))
    line = refused("sft", [f"data.path={path}", "data.max_length=1000"], 2)
    assert line.startswith(f"{path}: the longest sequence has ")
    assert line.endswith("but the model has 128 positions - lower max_length (1000) to 128 or less")


def tiny_model_copy(directory: Path, **changes: str | None) -> Path:
    """Copy data/tiny_model with other keys in tokenizer_config.json; None takes one out."""
    shutil.copytree(ROOT / TINY, directory)
    path = directory / "tokenizer_config.json"
    kept = {key: value for key, value in {**json.loads(path.read_text()), **changes}.items() if value is not None}
    path.write_text(json.dumps(kept))
    return directory


@pytest.mark.parametrize("pad_token", [None, "<eos>"])
def test_14_15_a_tokenizer_without_a_pad_token_of_its_own_gets_one(
    pad_token: str | None, run: Callable[..., Outcome], tmp_path: Path
) -> None:
    model = tiny_model_copy(tmp_path / "model", pad_token=pad_token)
    outcome = run("sft", [f"model.path={model}"])
    assert outcome.status == 0
    saved = AutoTokenizer.from_pretrained(outcome.directory / "policy")
    assert saved.pad_token == "<pad>" and saved.pad_token_id != saved.eos_token_id
    assert json.loads((outcome.directory / "policy/config.json").read_text())["vocab_size"] == 488


@pytest.mark.parametrize("verb", ["sft", "reward-model", "ppo"])
def test_16_a_tokenizer_without_eos_is_refused(verb: str, refused: Callable[..., str], tmp_path: Path) -> None:
    model = tiny_model_copy(tmp_path / "model", eos_token=None)
    line = refused(verb, [f"model.path={model}"], 2)
    assert line == f"{model}: the tokenizer has no EOS token - set eos_token in its tokenizer_config.json"


def test_16_messages_without_a_chat_template_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    model = tiny_model_copy(tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    line = refused("sft", [f"model.path={model}", "data.path=data/conversations.jsonl"], 2)
    assert line == f"{model}: the rows hold messages, but the tokenizer has no chat template - add chat_template.jinja"


def test_5_a_response_that_is_eos_at_once_has_length_1_and_gets_its_score(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    model = tiny_model_copy(tmp_path / "model")
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(488))}))
    outcome = run("ppo", [f"model.path={model}", "score.missing_eos_penalty=1"])
    assert outcome.status == 0
    metrics = outcome.metrics
    assert all(math.isfinite(number) for number in metrics.values())
    assert (metrics["val/response_length"], metrics["val/share_ended"], metrics["val/num_eos_tokens"]) == (1, 1, 4)
    assert metrics["objective/scores"] == metrics["objective/rlhf_reward"] == 2.5


def test_6_without_any_eos_every_score_is_lowered_and_the_share_is_0(run: Callable[..., Outcome]) -> None:
    outcome = run("ppo", ["sampling.max_new_tokens=2", "score.missing_eos_penalty=1.5"])
    assert outcome.status == 0
    metrics = outcome.metrics
    assert all(math.isfinite(number) for number in metrics.values())
    assert (metrics["val/share_ended"], metrics["val/response_length"]) == (0, 2)
    assert (metrics["objective/raw_scores"], metrics["objective/scores"]) == (2.5, 1.0)


@pytest.mark.parametrize(
    "overrides", [(), ("gamma=0", "gae_lambda=0"), ("score.normalise=running",), ("score.clip=1",)], ids=" ".join
)
def test_24_a_constant_reward_gives_finite_numbers(overrides: tuple[str, ...], run: Callable[..., Outcome]) -> None:
    outcome = run("ppo", ["steps=2", *overrides])
    assert (outcome.status, outcome.errors) == (0, [])
    assert all(math.isfinite(number) for number in outcome.metrics.values())


@pytest.mark.parametrize("overrides", [(), ("whiten_advantages=false",), ("score.clip=5",)], ids=" ".join)
def test_25_a_reward_of_a_million_gives_finite_numbers(
    overrides: tuple[str, ...], run: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = run("ppo", ["steps=2", f"rewards=[{{kind: function, path: '{tmp_path}/rewards.py:huge'}}]", *overrides])
    assert (outcome.status, outcome.errors) == (0, [])
    assert all(math.isfinite(number) for number in outcome.metrics.values())


def test_26_to_28_wrong_numbers_are_reported_all_at_once(run: Callable[..., Outcome]) -> None:
    wrong = {
        "optimizer.learning_rate=0": "must be greater than 0 [got 0]",
        "value_optimizer.learning_rate=.nan": "must be a finite number [got NaN]",
        "clip_range=0": "must be greater than 0 [got 0]",
        "value_clip_range=-0.1": "must be greater than 0 [got -0.1]",
        "kl_coef=-0.5": "must be at least 0 [got -0.5]",
        "gamma=2": "must be at most 1 [got 2]",
        "gae_lambda=-1": "must be at least 0 [got -1]",
        "sampling.temperature=0": "must be greater than 0 [got 0]",
        "sampling.top_p=1.5": "unknown key [got 1.5]",
        "steps=0": "must be at least 1 [got 0]",
    }
    outcome = run("ppo", list(wrong))
    expected = {f"config error: command line: {key.partition('=')[0]}: {text}" for key, text in wrong.items()}
    assert (outcome.status, set(outcome.errors), len(outcome.errors)) == (2, expected, len(wrong))
    assert not outcome.directory.exists()


@pytest.mark.parametrize("number", ["0", "-1e-4", ".nan", ".inf"])
@pytest.mark.parametrize("verb", ["sft", "reward-model"])
def test_26_a_learning_rate_must_be_positive_and_finite(verb: str, number: str, refused: Callable[..., str]) -> None:
    line = refused(verb, [f"optimizer.learning_rate={number}"], 2)
    assert line.startswith("config error: command line: optimizer.learning_rate: must be ")


def test_29_minibatches_that_do_not_divide_are_refused_with_the_nearest_that_do(refused: Callable[..., str]) -> None:
    line = refused("ppo", ["rollout_batch_size=16", "minibatches=3"], 2)
    assert line.endswith("minibatches (3) must divide rollout_batch_size (16); nearest valid: 2 or 4")


@pytest.mark.parametrize("verb", ["sft", "reward-model", "ppo"])
def test_30_zero_steps_are_refused(verb: str, refused: Callable[..., str]) -> None:
    assert refused(verb, ["steps=0"], 2) == "config error: command line: steps: must be at least 1 [got 0]"

"""Tests of rlhf.cli.command: what one command prints and returns."""

import importlib.metadata
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from pydantic import BaseModel

from rlhf import errors
from rlhf.cli import STAGES, main, verb_of
from rlhf.config.reading.keys import keys_of
from rlhf.config.reading.yaml_text import parse_yaml

SFT = "output_dir: runs/x\nmodel: {path: m}\ndata: {path: d.jsonl}\nsteps: 2\n"


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "sft.yaml"
    path.write_text(SFT)
    return str(path)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., object]], None]:
    """Put a function in the place of `rlhf.sft.train_sft`."""

    def replace(function: Callable[..., object]) -> None:
        module = ModuleType("rlhf.sft")
        module.train_sft = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "rlhf.sft", module)

    return replace


def _raising(error: BaseException) -> Callable[[object], object]:
    def run(config: object) -> object:
        raise error

    return run


def test_a_stage_gets_its_configuration_and_the_place_of_its_results_is_printed(config, stage, capsys) -> None:
    seen = []
    stage(lambda config: seen.append(config) or Path("runs/x"))
    assert main(["sft", "seed=3", "--config", config, "--optimizer.learning_rate=1e-4", "steps=5"]) == 0
    assert (seen[0].seed, seen[0].optimizer.learning_rate, seen[0].steps) == (3, 1e-4, 5)
    assert capsys.readouterr().out == "results: runs/x\n"


def test_a_stage_runs_from_the_command_line_alone(stage) -> None:
    seen = []
    stage(lambda config: seen.append(config))
    assert main(["sft", "output_dir=runs/x", "model.path=m", "data.path=d.jsonl", "steps=5"]) == 0
    assert (seen[0].model.path, seen[0].data.path, seen[0].steps) == ("m", "d.jsonl", 5)


@pytest.mark.parametrize("verb", ["generate", "chat"])
def test_a_model_may_be_named_without_a_key(verb, monkeypatch) -> None:
    seen = []
    module = ModuleType(f"rlhf.evaluation.{verb}")
    setattr(module, verb, lambda config: seen.append(config))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert main([verb, "runs/x: y", "decoding.temperature=0.5"]) == 0
    assert (seen[0].model, seen[0].decoding.temperature) == ("runs/x: y", 0.5)
    assert main([verb]) == 2


def test_pairs_are_sampled_from_a_model_without_a_key(monkeypatch) -> None:
    seen = []
    module = ModuleType("rlhf.preferences.pairs")
    module.sample_pairs = lambda config: seen.append(config)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert main(["sample-pairs", "runs/x", "output=pairs.jsonl"]) == 0
    assert (seen[0].model, seen[0].output) == ("runs/x", "pairs.jsonl")


@pytest.mark.parametrize(("verb", "module", "function", "rows"), [
    ("label", "labels", "label_pairs", "pairs"), ("score", "scores", "add_scores", "data"),
])  # fmt: skip
@pytest.mark.parametrize(("judge", "kind", "of_judge"), [
    ("runs/x: y=z", "model", {"path": "runs/x: y=z"}), ("{kind: regex, pattern: 'a=b'}", "regex", {"pattern": "a=b"}),
])  # fmt: skip
def test_a_judge_is_a_path_or_keys(verb, module, function, rows, judge, kind, of_judge, monkeypatch) -> None:
    seen = []
    made = ModuleType(f"rlhf.preferences.{module}")
    setattr(made, function, lambda config: seen.append(config))
    monkeypatch.setitem(sys.modules, made.__name__, made)
    for given in (["--judge", judge], [f"--judge={judge}"]):
        assert main([verb, *given, f"{rows}.path=a.jsonl", "output=b.jsonl"]) == 0
        found = seen.pop().judge
        assert found.kind == kind and {name: getattr(found, name) for name in of_judge} == of_judge


def test_a_profile_is_asked_for_on_the_command_line(config, stage) -> None:
    seen = []
    stage(lambda config, **options: seen.append(options))
    assert main(["sft", "--profile", "--config", config]) == 0
    assert main(["sft", "--config", config]) == 0
    assert seen == [{"profile": True}, {}]


@pytest.mark.parametrize("verb", ["generate", "evaluate", "validate"])
def test_a_verb_that_trains_nothing_has_no_profile(verb, config, capsys) -> None:
    assert main([verb, "--profile", "--config", config]) == 2
    assert "unrecognized arguments: --profile" in capsys.readouterr().err


def test_a_stage_without_results_prints_nothing(config, stage, capsys) -> None:
    stage(lambda config: None)
    assert main(["sft", "--config", config]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (errors.DataError("x.jsonl:3: not JSON"), 3, "error: x.jsonl:3: not JSON\n"),
        (errors.CheckpointError("a\nb"), 4, "error: a\nerror: b\n"),
        (errors.RewardError("r"), 5, "error: r\n"),
        (errors.GuardStop("g"), 6, "error: g\n"),
        (errors.Terminated("saved"), 143, "error: saved\n"),
        (errors.ConfigError("config error: a: b\nplain"), 2, "config error: a: b\nerror: plain\n"),
        (errors.DataError("\x1b]0;title\x07 in a row"), 3, "error: ]0;title in a row\n"),
        (errors.DataError(""), 3, "error: DataError\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (
            ZeroDivisionError("by zero\nmore"),
            1,
            "error: ZeroDivisionError: by zero (run again with --debug for the traceback)\n",
        ),
    ],
)
def test_an_error_becomes_lines_and_a_status(error, status, printed, config, stage, capsys) -> None:
    stage(_raising(error))
    assert main(["sft", "--config", config]) == status
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", printed)


@pytest.mark.parametrize("error", [errors.DataError("d"), KeyError("k"), KeyboardInterrupt()])
def test_with_debug_the_error_itself_rises(error, config, stage) -> None:
    stage(_raising(error))
    with pytest.raises(type(error)):
        main(["sft", "--config", config, "--debug"])


def test_only_the_first_process_prints(config, stage, capsys, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    stage(_raising(errors.DataError("d")))
    assert main(["sft", "--config", config]) == 3
    stage(lambda config: Path("runs/x"))
    assert main(["sft", "--config", config]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_an_error_that_one_process_alone_may_have_met_is_printed_with_its_process(
    config, stage, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    stage(_raising(errors.RewardError("the reward fell over")))
    assert main(["sft", "--config", config]) == 5
    assert capsys.readouterr().err == "process 1: error: the reward fell over\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: the following arguments are required: VERB"),
        (["sft"], "error: nothing to run: give --config FILE, or path.to.key=value for every key that has no default"),
        (["validate", "seed=1"], "error: nothing to run: give --config FILE"),
        (["sft", "seed=1"], "config error: command line: output_dir: required, but missing"),
        (["stf"], "error: stf: no such verb (did you mean sft?); the verbs are sft, reward-model, ppo, "),
        (["reward_model", "steps=2"], "error: reward_model: no such verb (did you mean reward-model?)"),
        (["zzz"], "error: zzz: no such verb; the verbs are sft"),
        (["sft", "--config"], "error: argument --config: expected one argument"),
        (["sft", "--config", "missing.yaml"], "config error: missing.yaml: cannot be read: no such file or directory"),
        (["sft", "--config", "a=b.yaml"], "config error: a=b.yaml: cannot be read: no such file or directory"),
        (["sft", "--config=a.b=c.yaml"], "config error: a.b=c.yaml: cannot be read: no such file or directory"),
        (["sft", "--config", "x.yaml", "--kl_coef", "1"], "error: unrecognized arguments: --kl_coef 1"),
        (["sft", "--conf", "x.yaml"], "error: unrecognized arguments: --conf"),
        (["sft", "--config", "CONFIG", "sede=1"], "config error: command line: sede: unknown key (did you mean seed?)"),
        (["validate", "--config", "mine.yaml"], "config error: mine.yaml: the file's name is no verb: add --verb"),
    ],
)
def test_a_wrong_command_line_is_refused_with_status_2(arguments, message, config, capsys) -> None:
    assert main([config if argument == "CONFIG" else argument for argument in arguments]) == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize("verb", STAGES)
def test_help_lists_the_twelve_commonest_keys_and_help_all_every_key(verb, capsys) -> None:
    model = STAGES[verb].model
    assert main([verb, "--help"]) == 0
    assert len(_listed(capsys.readouterr().out, model)) == 12
    assert main([verb, "--help-all"]) == 0
    assert _listed(capsys.readouterr().out, model) == [key.path for key in keys_of(model)]


def _listed(page: str, model: type[BaseModel]) -> list[str]:
    known = {key.path for key in keys_of(model)}
    return [path for line in page.splitlines() if (path := line.partition(": ")[0]) in known]


def test_a_library_says_nothing_of_its_future_and_a_users_own_code_does(config, stage, capsys) -> None:
    def run(config: object) -> None:
        for module in ("transformers.modeling_utils", "torch", "rlhf.sft", "my_reward"):
            warnings.warn_explicit(f"from {module}", FutureWarning, f"{module}.py", 1, module=module)

    stage(run)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        assert main(["sft", "--config", config]) == 0
    assert [str(warning.message) for warning in shown] == ["from my_reward"]


@pytest.mark.parametrize("arguments", [["validate", "-h"], ["validate", "--config", "x", "--help"]])
def test_validate_has_help_too(arguments, capsys) -> None:
    assert main(arguments) == 0
    assert "--verb" in capsys.readouterr().out


def test_validate_prints_the_whole_configuration(config, capsys) -> None:
    assert main(["validate", "--config", config, "seed=7"]) == 0
    printed = parse_yaml(capsys.readouterr().out)
    assert isinstance(printed, dict)
    assert (printed["seed"], printed["steps"], printed["batch_size"]) == (7, 2, 32)


def test_validate_takes_the_verb_from_the_command_line(config, tmp_path, capsys) -> None:
    other = Path(config).rename(tmp_path / "mine.yaml")
    assert main(["validate", "--verb", "sft", "--config", str(other)]) == 0
    assert main(["validate", "--verb", "ppo", "--config", str(other)]) == 2
    assert "rewards: required, but missing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "verb"), [("ppo.yaml", "ppo"), ("reward_model.yml", "reward-model"), ("run.yaml", "run")]
)
def test_the_verb_follows_from_the_name_of_the_file(name, verb) -> None:
    assert verb_of(Path("configs") / name) == verb


def test_fetch_lists_the_catalogue_and_downloads_by_name(monkeypatch, capsys) -> None:
    module = ModuleType("rlhf.fetch")
    module.catalogue = lambda: {"reviews": SimpleNamespace(description="film reviews")}  # type: ignore[attr-defined]
    module.fetch = lambda name: Path("cache") / name  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rlhf.fetch", module)
    assert main(["fetch"]) == 0
    assert main(["fetch", "reviews", "model"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "reviews: film reviews",
        "results: cache/reviews",
        "results: cache/model",
    ]


def test_a_server_gets_its_options_and_has_no_overrides(monkeypatch, capsys) -> None:
    seen = []
    module = ModuleType("rlhf.serving")
    module.serve = seen.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rlhf.serving", module)
    assert main(["serve-reward", "--port=0", "--max-items=7", "--model", "runs/lr=1e-5/rm"]) == 0
    assert (seen[0].port, seen[0].max_items, seen[0].model, seen[0].function) == (0, 7, "runs/lr=1e-5/rm", None)
    assert main(["serve-reward"]) == 2
    assert main(["serve-reward", "--function", "r.py:f", "timeout=3"]) == 2
    assert main(["serve-reward", "--function", "r.py:f", "--timeout", "0"]) == 2
    problems = capsys.readouterr().err.splitlines()
    assert problems[0].startswith("error: one of the arguments --model --function is required")
    assert problems[1].startswith("error: unrecognized arguments: timeout=3")
    assert problems[2] == "error: serve-reward: --timeout: must be above 0, got 0.0"
    assert len(seen) == 1


def test_the_version_is_that_of_the_distribution(capsys) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    try:
        expected = importlib.metadata.version("rlhf-ppo")
    except importlib.metadata.PackageNotFoundError:
        expected = "(not installed)"
    assert capsys.readouterr().out == f"rlhf {expected}\n"


def test_the_module_runs_without_torch_and_in_a_plain_locale(tmp_path) -> None:
    path = tmp_path / "sft.yaml"
    path.write_text(SFT + 'seed: "\u00e9\U0001f600"\n', encoding="utf-8")
    blocked = tmp_path / "torch.py"
    blocked.write_text("raise SystemExit('torch was imported')")
    root = Path(__file__).parents[2]
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": f"{tmp_path}:{root}"}
    command = [sys.executable, "-m", "rlhf", "sft", "--config", str(path)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f'config error: {path}: seed: must be an integer [got "\\u00e9\\ud83d\\ude00"]\n'


def test_an_interrupt_while_python_ends_prints_nothing_and_keeps_the_status():
    code = (
        "import atexit, os, signal\n"
        "from rlhf.cli import console\n"
        "atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))\n"
        "console(['fetch'])\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "smollm2-135m-instruct" in ended.stdout

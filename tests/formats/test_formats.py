"""What an earlier version wrote is read by this one and goes on with the same numbers, or is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from rlhf.cli import main
from rlhf.models.pretrained.loading import load_causal_lm, load_scalar_lm
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.report.reading.run import read_run
from rlhf.stage import frame as stage_module
from rlhf.training.storage.manifest import FORMAT_VERSION, MANIFEST, build_manifest

HERE = Path(__file__).parent
STAGES = ("sft", "reward_model", "ppo")
MODELS = [("format-1", "sft"), *(("format-2", stage) for stage in STAGES)]
CLOSE = {"rel": 1e-3, "abs": 1e-4}
"""Float32 sums of some hundred products round differently from processor to processor, near 1e-5 of the largest term;
the steps of Adam and the variances of PPO's metrics divide by small numbers and make that ten times as much. A moment,
a coefficient or a scale that is lost moves the numbers by more (see the last test)."""


@pytest.fixture(scope="session")
def make(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The script that wrote the fixtures."""
    return module(HERE / "make.py")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`written("format-2")` is a copy of a fixture, in which the test runs as if no key was added since."""

    def copy(name: str) -> Path:
        place = Path(shutil.copytree(HERE / name, tmp_path / name))
        saved = {file.parent.name: yaml.safe_load(file.read_text()) for file in place.glob("*/config.yaml")}
        counts = stage_module._what_counts
        monkeypatch.setattr(
            stage_module, "_what_counts", lambda config: _as_of_old(counts(config), saved[config.output_dir])
        )
        monkeypatch.chdir(place)
        return place

    return copy


def _as_of_old(now: Any, saved: Any) -> Any:
    """Leave out the keys that a saved configuration does not have, as deep as it goes."""
    if isinstance(now, dict):
        return {key: _as_of_old(value, saved[key]) for key, value in now.items() if key in saved}
    if isinstance(now, list):
        return [_as_of_old(one, other) for one, other in zip(now, saved, strict=True)]
    return now


def _expected(name: str, what: str, stage: str) -> Any:
    return json.loads((HERE / name / "expected.json").read_text())[what][stage]


def test_there_is_a_fixture_of_the_current_format(make: ModuleType) -> None:
    manifests = list(HERE.glob(f"format-{FORMAT_VERSION}/*/checkpoints/*/manifest.json"))
    assert len(manifests) == len(make.STAGES)
    assert all(json.loads(path.read_text())["format_version"] == FORMAT_VERSION for path in manifests)


@pytest.mark.sweep
@pytest.mark.parametrize("stage", STAGES)
def test_a_finished_run_is_complete_and_goes_on_from_its_checkpoint_with_the_same_numbers(
    stage: str, written: Callable[[str], Path], make: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    run = written("format-2") / stage
    assert main(make.command(stage)) == 0
    assert f"{stage}: complete, nothing to do" in capsys.readouterr().out
    assert main(make.command(stage, f"steps={make.LONGER}")) == 0
    assert "resuming from" in capsys.readouterr().out
    found, expected = make.steps_after_checkpoint(run), _expected("format-2", "steps", stage)
    assert len(found) == len(expected) == 2
    for row, pinned in zip(found, expected, strict=True):
        assert {name: row[name] for name in pinned} == pytest.approx(pinned, **CLOSE)


@pytest.mark.parametrize(("name", "stage"), MODELS)
def test_a_model_of_an_earlier_format_says_the_same(
    name: str, stage: str, written: Callable[[str], Path], make: ModuleType
) -> None:
    run = written(name) / stage
    path = str(run / ("reward_model" if stage == "reward_model" else "policy"))
    model = load_scalar_lm(path, new_head=False) if stage == "reward_model" else load_causal_lm(path)
    tokenizer = load_tokenizer(path)
    ids = [torch.tensor([tokenizer(text).input_ids]) for text in make.TEXTS]
    with torch.no_grad():
        found = [model(each) if stage == "reward_model" else model(each, labels=each) for each in ids]
    numbers = [float(each.logits if stage == "reward_model" else each.loss) for each in found]
    assert numbers == pytest.approx(_expected(name, "models", stage), **CLOSE)


@pytest.mark.parametrize(("name", "stages"), [("format-1", ("sft",)), ("format-2", STAGES)])
def test_a_run_directory_of_an_earlier_format_can_be_reported(name: str, stages: tuple[str, ...]) -> None:
    run = read_run(HERE / name)
    assert set(run.stages) == set(stages)
    for stage in run.stages.values():
        assert (stage.is_complete, stage.checkpoints, stage.metrics.steps) == (True, [2], [1, 2, 3])


def test_a_checkpoint_of_format_1_is_refused_by_name(
    written: Callable[[str], Path], make: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    run = written("format-1") / "sft"
    (run / "complete.json").unlink()
    assert main(make.command("sft")) == 4
    error = capsys.readouterr().err
    assert f"a checkpoint of format 1, this rlhf reads format {FORMAT_VERSION}" in error
    assert "go on with the version that wrote it" in error and len(error.splitlines()) == 1


def _rewrite(run: Path, change: Callable[[Path], object], **settings: object) -> None:
    """Change the files of a run's checkpoint, add settings, and let the manifest vouch for it all."""
    checkpoint = run / "checkpoints" / "step-000002"
    old = json.loads((checkpoint / MANIFEST).read_text())
    (checkpoint / MANIFEST).unlink()
    change(checkpoint)
    text = build_manifest(checkpoint, old["step"], {**old["fingerprint"], **settings}, old["rows"])
    (checkpoint / MANIFEST).write_text(text)


def test_a_checkpoint_with_a_setting_that_this_version_does_not_know_is_refused_by_its_name(
    written: Callable[[str], Path], make: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    run = written("format-2") / "sft"
    (run / "complete.json").unlink()
    _rewrite(run, lambda _: None, half_life=3)
    assert main(make.command("sft")) == 4
    assert "these differ: half_life (saved 3, now nothing)" in capsys.readouterr().err


def _group(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], object]:
    def changed(checkpoint: Path) -> None:
        file = checkpoint / f"{name}.safetensors"
        save_file({key: change(tensor).contiguous() for key, tensor in load_file(file).items()}, file)

    return changed


def _state(**values: object) -> Callable[[Path], object]:
    def changed(checkpoint: Path) -> None:
        state = json.loads((checkpoint / "state.json").read_text())
        (checkpoint / "state.json").write_text(json.dumps({**state, **values}))

    return changed


def _tensor(group: str) -> Callable[[Path], object]:
    def added(checkpoint: Path) -> None:
        file = checkpoint / f"{group}.safetensors"
        save_file({**load_file(file), "half_life": torch.zeros(1)}, file)

    return added


NO_SCALE = {"count": 0.0, "mean": 0.0, "squares": 0.0}
UNREAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a key": (_state(half_life=3), "state.json"),
    "a key inside of a key": (_state(running_scale={**NO_SCALE, "half_life": 3}), "state.json: running_scale"),
    "a weight": (_tensor("masters"), "masters.safetensors"),
    "a moment": (_tensor("optimizer"), "optimizer.safetensors"),
    "a generator": (_tensor("generators"), "generators.safetensors"),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_a_resumed_run_would_ignore_is_refused_by_its_name(
    name: str, written: Callable[[str], Path], make: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    change, where = UNREAD[name]
    run = written("format-2") / "ppo"
    (run / "complete.json").unlink()
    _rewrite(run, change)
    assert main(make.command("ppo")) == 4
    assert f"{where}: does not fit this run: also holds half_life" in capsys.readouterr().err


CHANGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "moments": ("sft", _group("optimizer", torch.zeros_like)),
    "updates": ("sft", _state(num_updates=0)),
    "weights": ("reward_model", _group("masters", lambda held: held * 1.01)),
    "coefficient": ("ppo", _state(kl_coef=0.06)),
    "scale": ("ppo", _state(running_scale=NO_SCALE)),
}
"""What a reader of checkpoints could lose."""


@pytest.mark.parametrize("name", CHANGES)
def test_a_part_that_is_lost_moves_the_numbers_beyond_the_tolerance(
    name: str, written: Callable[[str], Path], make: ModuleType
) -> None:
    stage, change = CHANGES[name]
    run = written("format-2") / stage
    _rewrite(run, change)
    assert main(make.command(stage, f"steps={make.LONGER}")) == 0
    found, expected = make.steps_after_checkpoint(run), _expected("format-2", "steps", stage)
    close = [
        {name: row[name] for name in pinned} == pytest.approx(pinned, **CLOSE)
        for row, pinned in zip(found, expected, strict=True)
    ]
    assert not all(close)

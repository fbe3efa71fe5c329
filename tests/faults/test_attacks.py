"""What comes with a model, a checkpoint, a data set or a configuration is never run; nothing leaves the machine."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rlhf

TEMPLATE = "{{ ''.__class__.__mro__[1].__subclasses__() }}{{ cycler.__init__.__globals__.os.system('touch %s') }}"
CODE = """
from pathlib import Path
Path({marker!r}).touch()
def score(completions, **columns):
    Path({marker!r}).touch()
    return [0.0] * len(completions)
"""


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def with_pickle(model: Path, marker: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(marker)))


def with_remote_code(model: Path, marker: Path) -> None:
    (model / "evil.py").write_text(CODE.format(marker=str(marker)))
    config = json.loads((model / "config.json").read_text())
    kinds = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (model / "config.json").write_text(json.dumps({**config, "model_type": "evil", "auto_map": kinds}))


def with_template(model: Path, marker: Path) -> None:
    (model / "chat_template.jinja").write_text(TEMPLATE % marker)


def beside(model: Path, marker: Path) -> None:
    (model / "rewards.py").write_text(CODE.format(marker=str(marker)))
    config = json.loads((model / "config.json").read_text())
    rewards = [{"kind": "function", "path": f"{model}/rewards.py:score"}]
    (model / "config.json").write_text(
        json.dumps({**config, "rewards": rewards, "reward": f"{model}/rewards.py:score"})
    )


ATTACKS: dict[str, tuple[Callable[[Path, Path], None], int]] = {
    "weights in a pickle file": (with_pickle, 2),
    "code of its own": (with_remote_code, 2),
    "a template that reaches into python": (with_template, 2),
    "the path of a reward": (beside, 0),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_comes_with_a_model_is_not_run(
    attack: str, tmp_path: Path, workshop: Path, sft: Callable[..., Any], on_disk: ModuleType
) -> None:
    prepare, status = ATTACKS[attack]
    model, marker = Path(shutil.copytree(workshop / "policy", tmp_path / "model")), tmp_path / "marker"
    prepare(model, marker)
    turns = [{"role": "user", "content": "The film"}, {"role": "assistant", "content": " was warm."}]
    row = {"messages": turns, "reward": f"{model}/rewards.py:score"}
    data = on_disk.write_rows(tmp_path / "data.jsonl", [row])
    overrides = [f"model.path={model}", "model.random_init=false", f"data.path={data}", "steps=1"]
    ended = sft(tmp_path / "run", *overrides)
    assert ended.status == status, ended.err
    assert status == 0 or len(ended.err.splitlines()) == 1
    assert not marker.exists()


def test_a_pickle_file_in_a_checkpoint_is_not_opened(tmp_path: Path, run: Path, sft: Callable[..., Any]) -> None:
    (run / "complete.json").unlink()
    for checkpoint in (run / "checkpoints").iterdir():
        (checkpoint / "optimizer.pt").write_bytes(pickle.dumps(Payload(tmp_path / "marker")))
    ended = sft(run)
    assert ended.status == 4 and "optimizer.pt not listed in manifest.json" in ended.err
    assert not (tmp_path / "marker").exists()


def test_an_object_in_a_configuration_is_not_built(tmp_path: Path, sft: Callable[..., Any]) -> None:
    ended = sft(tmp_path / "run", f"model.path=!!python/object/apply:os.system ['touch {tmp_path}/marker']")
    assert ended.status == 2 and not (tmp_path / "marker").exists()


SOURCES = {path: path.read_text(encoding="utf-8") for path in Path(rlhf.__file__).parent.rglob("*.py")}


def test_code_of_a_user_is_loaded_for_rewards_alone() -> None:
    loaders = [path.name for path, text in SOURCES.items() if re.search(r"spec_from_file_location|exec_module", text)]
    assert loaders == ["user_code.py"]


def test_one_module_writes_spreadsheets() -> None:
    """Its own tests see that no cell begins as a formula."""
    writers = [path for path, text in SOURCES.items() if re.search(r"csv\.(writer|DictWriter)|\.to_csv\(", text)]
    assert [path.relative_to(Path(rlhf.__file__).parent).as_posix() for path in writers] == ["report/export.py"]


def test_every_installed_version_is_pinned_and_the_threat_model_is_written_down(root: Path) -> None:
    lines = [
        line for line in (root / "constraints.txt").read_text().splitlines() if line and not line.startswith(("#", " "))
    ]
    assert len(lines) > 20 and [line for line in lines if not re.match(r"[\w.\-\[\]]+==\S+", line)] == []
    told = (root / "SECURITY.md").read_text().lower()
    assert [word for word in ("trusted", "data", "model", "reward", "http") if word not in told] == []


@pytest.mark.trial
@pytest.mark.timeout(1000)
def test_the_smoke_pipeline_opens_no_connection(
    trial: Any, start: Callable[..., Any], root: Path, tmp_path: Path
) -> None:
    place = trial.place()
    injection = trial.injection(place, "offline")
    recipe = ["run", "--config", str(root / "configs" / "smoke" / "run.yaml"), f"output_dir={place}/run"]
    ended = start(recipe, cwd=root, injection=injection, HF_HUB_OFFLINE="0").end()
    trial.check(ended.status == 0, ended.err[-1000:])
    trial.check((place / "run" / "report.html").is_file(), "no report")
    log = tmp_path / "operations"
    trial.check(not log.exists() or log.read_text() == "", f"connections: {log.exists() and log.read_text()}")
    trial.end()

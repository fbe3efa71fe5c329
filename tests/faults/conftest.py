"""The real command line on tiny runs: in this process, on a finished run to damage; in child processes, for trials."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from rlhf.cli import main

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the trials out unless they are asked for."""
    trials = [item for item in items if item.get_closest_marker("trial") is not None]
    if trials and not config.getoption("--trials"):
        config.hook.pytest_deselected(items=trials)
        items[:] = [item for item in items if item.get_closest_marker("trial") is None]


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def finished_sft(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A finished run of SFT over five steps, with checkpoints of steps 2 and 4; not to be changed."""
    directory = tmp_path_factory.mktemp("faults") / "sft"
    with chdir(root):
        assert main(sft_command(directory)) == 0
    return directory


@pytest.fixture
def run(finished_sft: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished_sft, tmp_path / "sft"))


@pytest.fixture
def sft(root: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`sft(directory, "key=value")` runs the command in this process."""

    def call(directory: Path, *overrides: str) -> Ended:
        capsys.readouterr()
        with chdir(root):
            status = main(sft_command(directory, *overrides))
        return Ended(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def command() -> Callable[..., list[str]]:
    """The arguments of the same command, for a process of its own."""
    return sft_command


def sft_command(directory: Path, *overrides: str) -> list[str]:
    """Return the arguments that run SFT over five steps in a directory."""
    fixed = ["epochs=null", "steps=5", "eval_every=null", "eval_data=null", "checkpoints.every=2"]
    return ["sft", "--config", "configs/smoke/sft.yaml", *fixed, f"output_dir={directory}", *overrides]


@pytest.fixture(scope="session")
def children(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `children.py`."""
    return module(HERE / "children.py")


@pytest.fixture(scope="session")
def variants(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `variants.py`."""
    return module(HERE / "variants.py")


@pytest.fixture(scope="session")
def starter(root: Path, environment: dict[str, str], children: ModuleType) -> Iterator[Any]:
    """One process that has imported everything, for all tests."""
    script = [sys.executable, str(HERE / "starter.py")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(script, env=environment, cwd=root, **pipes) as process:
        yield children.Starter(process)
        process.kill()


@pytest.fixture
def start(starter: Any, tmp_path: Path, children: ModuleType) -> Iterator[Callable[..., Any]]:
    """`start(arguments, NAME=value)` starts a command; what still runs at the end of the test is killed."""
    started: list[Any] = []

    def begin(
        arguments: list[str],
        *,
        launched: bool = False,
        cwd: Path | None = None,
        injection: dict[str, Any] | None = None,
        **variables: str,
    ) -> Any:
        out, err, worker = (tmp_path / f"{kind}-{len(started)}" for kind in ("out", "err", "worker"))
        request = {"arguments": arguments, "variables": variables, "launched": launched, "injection": injection}
        paths = {"out": str(out), "err": str(err), "worker": str(worker), "cwd": None if cwd is None else str(cwd)}
        started.append(children.Started(starter.ask(verb="start", **request, **paths), out, err, worker, starter))
        return started[-1]

    yield begin
    for process in started:
        process.signal(9)


@pytest.fixture(scope="session")
def scene(
    tmp_path_factory: pytest.TempPathFactory, variants: ModuleType, tiny: ModuleType, workshop: Path, root: Path
) -> dict[str, Any]:
    """The commands of all variants, by name."""
    return dict(variants.make(tmp_path_factory.mktemp("scene"), tiny, workshop, root))


@pytest.fixture(scope="session")
def wholes(module: Callable[[Path], ModuleType], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What undisturbed runs left."""
    return module(HERE / "trial.py").Wholes({}, tmp_path_factory.mktemp)


@pytest.fixture
def trial(
    request: pytest.FixtureRequest,
    module: Callable[[Path], ModuleType],
    variants: ModuleType,
    on_disk: ModuleType,
    scene: dict[str, Any],
    start: Callable[..., Any],
    tmp_path: Path,
    wholes: Any,
) -> Any:
    """Trials of one test: runs that are disturbed, started again and compared; they are counted for the report."""
    made = module(HERE / "trial.py").Trials(variants, on_disk, scene, start, tmp_path, wholes)
    yield made
    request.node.user_properties.append(("figures", dict(made.figures)))

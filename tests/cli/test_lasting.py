"""Tests of rlhf.cli.lasting: the real command line in a process, whose output nobody reads."""

import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

# A stage in the place of the real one prints, does its work, and prints again: no library needs to be imported.
PROGRAM = """
import sys, types
from pathlib import Path
from rlhf.cli import main

def work(config, **options):
    for number in range(20_000):
        print("a line of a stage", number, flush=number % 1000 == 0)
    print("progress", file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text("done")
    return Path("runs/x")

for name, function in (("rlhf.sft", "train_sft"), ("rlhf.evaluation.generate", "generate")):
    module = types.ModuleType(name)
    setattr(module, function, work)
    sys.modules[name] = module
sys.modules["rlhf.evaluation"] = types.ModuleType("rlhf.evaluation")
sys.exit(main(sys.argv[2:]))
"""
SFT = ["sft", "output_dir=runs/x", "model.path=m", "data.path=d.jsonl", "steps=5"]
GENERATE = ["generate", "m"]

pytestmark = pytest.mark.slow


def closed_pipe() -> IO[bytes]:
    """A pipe from which nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "wb")


def ended(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], out: int | IO[bytes], err: int | IO[bytes]
) -> tuple[int, bytes, bool]:
    """Run the command; return its status, its errors, and whether its work was done."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "done"), *arguments]
    process = subprocess.run(command, env=environment, cwd=tmp_path, stdout=out, stderr=err, check=False)
    return process.returncode, process.stderr or b"", (tmp_path / "done").exists()


def test_a_run_whose_output_nobody_reads_is_done_with_status_0(tmp_path: Path, environment: dict[str, str]) -> None:
    with closed_pipe() as pipe:
        assert ended(tmp_path, SFT, environment, pipe, subprocess.PIPE) == (0, b"progress\n", True)
        assert ended(tmp_path, SFT, environment, pipe, pipe) == (0, b"", True)


def test_a_run_whose_output_has_no_room_is_done_with_status_0(tmp_path: Path, environment: dict[str, str]) -> None:
    with Path("/dev/full").open("wb") as full:
        assert ended(tmp_path, SFT, environment, full, full) == (0, b"", True)


def test_a_run_whose_output_was_closed_from_the_start_is_done_with_status_0(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    command = f"exec {sys.executable} -c '{PROGRAM}' {tmp_path}/done {' '.join(SFT)} >&- 2>&-"
    process = subprocess.run(["/bin/sh", "-c", command], env=environment, cwd=tmp_path, check=False)
    assert process.returncode == 0 and (tmp_path / "done").exists()


def test_a_verb_that_prints_its_result_ends_when_nobody_reads_it(tmp_path: Path, environment: dict[str, str]) -> None:
    with closed_pipe() as pipe:
        assert ended(tmp_path, GENERATE, environment, pipe, subprocess.PIPE) == (141, b"", False)


def test_errors_that_nobody_reads_leave_the_status(tmp_path: Path, environment: dict[str, str]) -> None:
    with closed_pipe() as pipe:
        assert ended(tmp_path, ["sft", "steps=nothing"], environment, pipe, pipe)[0] == 2


@pytest.mark.parametrize("verb", ["sft", "run"])
def test_the_streams_of_who_calls_main_are_left_as_they_were(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    from rlhf.cli import main

    before = sys.stdout, sys.stderr
    assert main([verb, "--help"]) == 0
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr().out.startswith(f"usage: rlhf {verb}")

"""Run as a script: starts commands as forks of itself, so that only one process pays for the imports.

Reads one JSON request a line and answers each with one number: `start` with the new process, `wait` with how it ended.
It forks before torch has started any thread.
"""

import gc
import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

import transformers.models.llama.modeling_llama  # noqa: F401 - imported here once for all children
from injection import Injection, inject

from rlhf import ppo, reward_model, sft  # noqa: F401
from rlhf.cli import console


def answer(request: dict[str, Any]) -> int:
    """Do what a request asks for."""
    if request["verb"] == "wait":
        return os.waitstatus_to_exitcode(os.waitpid(request["pid"], 0)[1])
    child = os.fork()
    if child == 0:
        os.environ.update(request["variables"])
        if request["cwd"]:
            os.chdir(request["cwd"])
        if request["launched"]:
            launch(Path(request["worker"]))
        become(request["arguments"], request["out"], request["err"], request["injection"])
    return child


def launch(worker: Path) -> None:
    """Become a launcher that only lives on; what returns is its worker, whose number is in the file `worker`."""
    child = os.fork()
    if child != 0:
        worker.write_text(str(child))
        while True:
            signal.pause()


def become(arguments: list[str], out: str, err: str, injection: dict[str, Any] | None) -> None:
    """Run a script, or the command line, as this process, and end."""
    for path, descriptor in ((os.devnull, 0), (out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    if injection is not None:
        inject(Injection(**injection))
    if arguments[0].endswith(".py"):
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
    console(arguments)


if __name__ == "__main__":
    gc.collect()
    gc.freeze()  # children then neither look at nor copy what was imported
    for line in sys.stdin:
        print(answer(json.loads(line)), flush=True)

"""Run as a script: starts commands as forks of itself, so that only one process pays for the imports.

Reads one JSON request a line and answers each with one number: `start` with the new process, `wait` with how it ended.
It forks before torch has started any thread.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path
from typing import Any

from rlhf import ppo, sft  # noqa: F401 - imported here once for all children
from rlhf.cli import main


def answer(request: dict[str, Any]) -> int:
    """Do what a request asks for."""
    if request["verb"] == "wait":
        return os.waitstatus_to_exitcode(os.waitpid(request["pid"], 0)[1])
    child = os.fork()
    if child == 0:
        os.environ.update(request["variables"])
        if request["launched"]:
            launch(Path(request["worker"]))
        become(request["arguments"], request["out"], request["err"])
    return child


def launch(worker: Path) -> None:
    """Become a launcher that only lives on; what returns is its worker, whose number is in the file `worker`."""
    child = os.fork()
    if child != 0:
        worker.write_text(str(child))
        while True:
            signal.pause()


def become(arguments: list[str], out: str, err: str) -> None:
    """Run a script, or the command line, as this process, and end."""
    for path, descriptor in ((os.devnull, 0), (out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), descriptor)
    if arguments[0].endswith(".py"):
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
    sys.exit(main(arguments))


if __name__ == "__main__":
    for line in sys.stdin:
        print(answer(json.loads(line)), flush=True)

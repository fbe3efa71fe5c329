"""Run as a script: kills copies of a run before each of their renames, then starts each again.

    kill_at_renames.py FINISHED WHERE ARGUMENT...   (arguments of the command, in which {run} stands for the copy)

It forks before torch has started any thread, so that each run costs no start of Python. Prints how many were killed.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

from rlhf import sft  # noqa: F401 - imported here once for all children
from rlhf.cli import main


def run(arguments: list[str], boundary: int | None) -> int:
    """Run a command in a child that kills itself before the n-th rename; return its exit status."""
    child = os.fork()
    if child == 0:
        call, num_calls = os.replace, 0

        def killing(*args: object, **kwargs: object) -> None:
            nonlocal num_calls
            num_calls += 1
            if boundary is not None and num_calls > boundary:
                os.kill(os.getpid(), signal.SIGKILL)
            call(*args, **kwargs)

        os.replace = killing
        signal.alarm(60)  # a child that hangs fails the test instead of holding it up
        os._exit(main(arguments))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def everywhere(finished: Path, where: Path, arguments: list[str]) -> int:
    """Kill at every rename; return how many there were."""
    for boundary in range(100):
        copy = Path(shutil.copytree(finished, where / str(boundary)))
        command = [argument.replace("{run}", str(copy)) for argument in arguments]
        status = run(command, boundary)
        if status == 0:
            return boundary
        assert status == -signal.SIGKILL, status
        again = run(command, None)
        assert again == 0, again
    raise AssertionError("it renames without end")


if __name__ == "__main__":
    print(everywhere(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))

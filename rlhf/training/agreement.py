"""What happens when one process fails where the others do not: all raise the same error, or notice that it is gone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from rlhf import errors
from rlhf.errors import LostProcess, RlhfError


class Failure(NamedTuple):
    """What one process tells the others about its error."""

    rank: int
    kind: str
    """The name of its class."""
    text: str


def failure_of(rank: int, error: Exception) -> Failure:
    """Describe an error to other processes."""
    return Failure(rank, type(error).__name__, str(error))


def first_error(failures: Sequence[Failure], rank: int, own: Exception | None) -> Exception:
    """Return the error that every process raises: that of the first process that failed.

    Args:
        failures: of all processes; at least one.
        rank: of this process.
        own: the error of this process, if it failed.
    """
    first = min(failures)
    if own is not None and first.rank == rank:
        return own
    kind = getattr(errors, first.kind, None)
    if isinstance(kind, type) and issubclass(kind, RlhfError):
        return kind(f"process {first.rank}: {first.text}")
    return RlhfError(f"process {first.rank} failed: {first.kind}: {first.text}")


@contextmanager
def noticing_loss() -> Iterator[None]:
    """Turn what the communication library raises into one line.

    Raises:
        LostProcess: the library failed, most often because a process ended.
    """
    try:
        yield
    except RuntimeError as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise LostProcess(
            f"another process ended, or did not answer in time; its own message says why ({line:.200})"
        ) from error

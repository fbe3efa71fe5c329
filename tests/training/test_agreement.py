"""What one process fails with, all raise."""

import pytest

from rlhf.errors import CheckpointError, GuardStop, LostProcess, RlhfError
from rlhf.training.agreement import failure_of, first_error, noticing_loss
from rlhf.training.processes import Processes


def test_every_process_raises_the_error_of_the_first_that_failed():
    errors = {2: ValueError("x"), 1: GuardStop("not finite")}
    failures = [failure_of(rank, error) for rank, error in errors.items()]
    assert first_error(failures, 1, errors[1]) is errors[1]
    for rank in (0, 2):
        error = first_error(failures, rank, errors.get(rank))
        assert type(error) is GuardStop and str(error) == "process 1: not finite" and error.exit_status == 6


def test_an_error_that_is_not_ours_is_named():
    error = first_error([failure_of(1, MemoryError("600 GiB"))], 0, None)
    assert type(error) is RlhfError and str(error) == "process 1 failed: MemoryError: 600 GiB"


def test_an_error_of_the_communication_is_one_line():
    with pytest.raises(LostProcess, match=r"its own message says why \(Connection closed by peer\)"), noticing_loss():
        raise RuntimeError("Connection closed by peer\nC++ frames")
    with pytest.raises(CheckpointError), noticing_loss():
        raise CheckpointError("mine")


def test_alone_a_process_agrees_with_itself():
    alone = Processes()
    assert alone.agreed(lambda: 7) == 7 and not alone.is_orphan
    with pytest.raises(KeyError):
        alone.agreed(lambda: {}["a"])

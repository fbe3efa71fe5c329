"""Tests of rlhf.doctor.finding."""

from rlhf.doctor.finding import Finding, graded


def test_a_line_has_the_state_the_name_what_was_measured_and_the_advice() -> None:
    assert Finding("memory", "ok", "1 of 2 GiB").line == "ok       memory: 1 of 2 GiB"
    assert Finding("memory", "failing", "3 of 2 GiB", "take less").line == "failing  memory: 3 of 2 GiB - take less"


def test_a_failure_outweighs_a_warning() -> None:
    assert graded("a", "m", failing="f", warning="w") == Finding("a", "failing", "m", "f")
    assert graded("a", "m", warning="w") == Finding("a", "warning", "m", "w")
    assert graded("a", "m") == Finding("a", "ok", "m")

import json
from types import SimpleNamespace

import pytest
import torch

from rlhf.errors import CheckpointError
from rlhf.training.processes import Processes
from rlhf.training.telemetry import profile as module
from rlhf.training.telemetry.phases import Phases
from rlhf.training.telemetry.profile import NO_PROFILE, Profile


class Two(Processes):
    """The first of two processes; the other has the same but for what it says."""

    def __init__(self, other):
        self.other = other

    device = torch.device("cpu")
    is_main = True

    def sums(self, numbers):
        return [2 * number for number in numbers]

    def gathered(self, items):
        return items + [self.other if isinstance(items[0], tuple) else item / 2 for item in items]

    def wait(self):
        pass


@pytest.fixture
def made(monkeypatch):
    """A factory of profiles on a clock of their own, on a machine of 100 FLOP/s and with a peak of 3 GiB."""
    monkeypatch.setattr(module, "matrix_rate", lambda *given: 100.0)
    monkeypatch.setattr(module, "peak_memory_bytes", lambda: 3 * 2**30)

    def make(processes=None):
        profile, clock = Profile(processes or Processes()), SimpleNamespace(now=0.0)
        profile.phases = Phases(clock=lambda: clock.now)
        profile.measure_machine((8, 4), 16, torch.bfloat16)
        profile.start()
        return profile, lambda name, seconds: spend(profile, clock, name, seconds)

    return make


def spend(profile, clock, name, seconds):
    if name is None:
        clock.now += seconds
    else:
        with profile.phases(name):
            clock.now += seconds


def two_rows(profile, spent):
    spent("forward", 2.0)
    spent("backward", 5.0)
    spent(None, 1.0)
    profile.add(30, {"forward": 100.0, "backward": 200.0})
    spent("evaluation", 8.0)
    first = profile.row()
    spent("checkpoint", 4.0)
    spent("forward", 2.0)
    profile.add(10, {"forward": 50.0, "backward": 0.0})
    profile.add(10, {"forward": 50.0, "backward": 0.0})
    return first, profile.row()


def test_a_row_holds_what_happened_since_the_last_one(made):
    first, second = two_rows(*made())
    assert first == {
        "time/forward": 2.0, "time/backward": 5.0, "time/evaluation": 8.0, "time/other": 1.0,
        # Evaluation is no part of throughput: 30 tokens and 300 operations in 8 s, at 100 operations a second.
        "profile/seconds": 16.0, "profile/tokens_per_second": 30 / 8, "profile/flops_per_second": 300 / 8,
        "profile/flop_utilisation": 300 / 800, "profile/other_share": 1 / 16, "profile/peak_memory_gib": 3.0,
    }  # fmt: skip
    assert second == {
        "time/forward": 2.0, "time/checkpoint": 4.0, "time/other": 0.0,
        "profile/seconds": 6.0, "profile/tokens_per_second": 10.0, "profile/flops_per_second": 50.0,
        "profile/flop_utilisation": 0.5, "profile/other_share": 0.0, "profile/peak_memory_gib": 3.0,
    }  # fmt: skip


def test_the_end_sums_up_all_rows_in_a_file_and_a_table(made, tmp_path, capsys):
    profile, spent = made()
    two_rows(profile, spent)
    profile.finish(tmp_path / "profile.json", "sft")
    content = json.loads((tmp_path / "profile.json").read_text())
    assert content["phases"]["forward"] == {
        "seconds": 4.0, "share": 4 / 22, "flops": 200.0, "flop_utilisation": 0.5
    }  # fmt: skip
    assert list(content["phases"]) == ["forward", "backward", "evaluation", "checkpoint", "other"]
    # 22 s in all, 10 s without evaluation and checkpoint.
    assert content["tokens"] == 50 and content["tokens_per_second"] == 5.0 and content["flop_utilisation"] == 0.4
    assert content["matrix_flops_per_second"] == 100.0
    assert content["matrix_products"] == "bfloat16 products of up to 16 tokens and [8, 4]"
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["sft:", "profile", "of", "22.0", "s"]
    assert ["forward", "4.00", "18.2%", "50.0%"] in lines
    assert ["other", "1.00", "4.5%"] in lines


def test_a_phase_of_an_unknown_name_is_listed_before_other(made, tmp_path):
    profile, spent = made()
    for name in ("retrieval", "forward"):
        spent(name, 1.0)
    profile.row()
    profile.finish(tmp_path / "profile.json", "x")
    assert list(json.loads((tmp_path / "profile.json").read_text())["phases"]) == ["forward", "retrieval", "other"]


def test_tokens_operations_and_rates_of_all_processes_add_up_and_the_largest_peak_counts(made):
    # The other process had a microbatch, this one none.
    profile, spent = made(Two(other=(40, {"forward": 600.0})))
    spent("forward", 2.0)
    row = profile.row()
    assert row["profile/tokens_per_second"] == 20.0
    assert row["profile/flop_utilisation"] == 600 / (2 * 200)
    assert row["profile/peak_memory_gib"] == 3.0


def test_the_peak_of_a_gpu_is_told_beside_that_of_the_process(made, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(module, "device_peak_memory_bytes", lambda device: 2**29)
    profile, spent = made()
    spent("forward", 2.0)
    assert profile.row()["profile/device_peak_memory_gib"] == 0.5
    profile.finish(tmp_path / "profile.json", "x")
    assert "peak memory 3.00 GiB, 0.50 GiB on the device" in capsys.readouterr().out


def test_without_a_row_there_is_nothing_to_tell(made, tmp_path, capsys):
    made()[0].finish(tmp_path / "profile.json", "x")
    assert capsys.readouterr().out == "" and not any(tmp_path.iterdir())


def test_a_disk_that_cannot_be_written_is_one_clear_line(made, tmp_path):
    profile, spent = made()
    two_rows(profile, spent)
    with pytest.raises(CheckpointError, match="profile.json: cannot be written"):
        profile.finish(tmp_path / "gone" / "profile.json", "x")


def test_switched_off_it_adds_nothing(tmp_path):
    NO_PROFILE.start()
    NO_PROFILE.measure_machine((8, 4), 16, torch.float32)
    assert NO_PROFILE.row() == {}
    NO_PROFILE.finish(tmp_path / "profile.json", "x")
    assert not NO_PROFILE.enabled and not any(tmp_path.iterdir())

import pytest

from rlhf.training.telemetry.phases import NO_PHASES, Phases


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def test_a_phase_holds_its_own_time_and_other_the_rest(clock):
    phases = Phases(clock=clock)
    clock.wait(1)
    for seconds in (2, 4):
        with phases("forward"):
            clock.wait(seconds)
        clock.wait(8)
    with phases("backward"):
        clock.wait(16)
    assert phases.taken() == {"forward": 6, "backward": 16, "other": 17}


def test_a_phase_inside_another_is_taken_off_the_outer_one(clock):
    phases = Phases(clock=clock)
    with phases("generation"):
        clock.wait(1)
        with phases("reward"):
            clock.wait(2)
            with phases("forward"):
                clock.wait(4)
        with phases("reward"):
            clock.wait(8)
        clock.wait(16)
    assert phases.taken() == {"generation": 17, "reward": 10, "forward": 4, "other": 0}


def test_taking_starts_anew(clock):
    phases = Phases(clock=clock)
    with phases("forward"):
        clock.wait(1)
    phases.taken()
    clock.wait(2)
    with phases("backward"):
        clock.wait(4)
    assert phases.taken() == {"backward": 4, "other": 2}
    assert phases.taken() == {"other": 0}


def test_a_phase_that_fails_is_closed(clock):
    phases = Phases(clock=clock)

    def fail():
        clock.wait(3)
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"), phases("forward"):
        fail()
    assert phases.taken() == {"forward": 3, "other": 0}


def test_taking_inside_a_phase_is_refused(clock):
    phases = Phases(clock=clock)
    with phases("forward"), pytest.raises(ValueError, match="none is open"):
        phases.taken()


def test_switched_off_it_reads_no_clock_in_a_phase():
    reads = []
    phases = Phases(enabled=False, clock=lambda: reads.append(1) or 0.0)
    reads.clear()
    with phases("forward"), phases("backward"):
        pass
    assert reads == []
    with NO_PHASES("forward"), NO_PHASES("forward"):
        pass


def test_work_on_a_gpu_is_waited_for_at_both_ends(monkeypatch, clock):
    waited = []
    monkeypatch.setattr("torch.cuda.synchronize", lambda device: waited.append((device.type, clock.now)))
    phases = Phases("cuda", clock=clock)
    waited.clear()
    with phases("forward"):
        clock.wait(1)
    assert waited == [("cuda", 100.0), ("cuda", 101.0)]

"""Tests of benchmarks/stopwatch.py."""

import json
from types import SimpleNamespace

import pytest

import stopwatch
from stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when it is told to."""
    now = SimpleNamespace(time=0.0)
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: now.time)
    return now


def spend(clock, seconds):
    clock.time += seconds


def test_time_belongs_to_the_innermost_phase_and_the_rest_is_other(clock):
    watch = Stopwatch()
    spend(clock, 100)  # before the start: counts nowhere
    watch.start()
    spend(clock, 1)
    with watch.phase("outer"):
        spend(clock, 2)
        with watch.phase("inner"):
            spend(clock, 4)
        spend(clock, 8)
    spend(clock, 16)
    watch.lap()
    assert watch.seconds == [31.0]
    assert watch.phases == [{"other": 17.0, "outer": 10.0, "inner": 4.0}]


def test_every_lap_starts_anew(clock):
    watch = Stopwatch()
    watch.start()
    for seconds in (3, 5):
        with watch.phase("work"):
            spend(clock, seconds)
        watch.lap()
    assert watch.seconds == [3.0, 5.0]
    assert [phases["work"] for phases in watch.phases] == [3.0, 5.0]


def test_wrapped_functions_are_charged_by_their_arguments_and_return_what_they_return(clock):
    def work(kind, seconds):
        spend(clock, seconds)
        return kind * 2

    owner, watch = SimpleNamespace(work=work), Stopwatch()
    watch.wrap(owner, "work", lambda kind, _: None if kind == "untimed" else kind)
    watch.wrap(owner, "not_there", "phase")
    watch.start()
    assert owner.work("a", 1) == "aa"
    owner.work("untimed", 2)
    owner.work("b", 4)
    watch.lap()
    assert watch.phases == [{"other": 2.0, "a": 1.0, "b": 4.0}]


def test_a_phase_ends_when_its_function_raises(clock):
    def work():
        spend(clock, 1)
        raise KeyError

    owner, watch = SimpleNamespace(work=work), Stopwatch()
    watch.wrap(owner, "work", "broken")
    with pytest.raises(KeyError):
        owner.work()
    spend(clock, 2)
    watch.lap()
    assert watch.phases == [{"other": 2.0, "broken": 1.0}]


def test_a_worker_writes_times_memory_and_versions(tmp_path, monkeypatch):
    work, result = tmp_path / "work.json", tmp_path / "result.json"
    work.write_text('{"rounds": 2}')
    monkeypatch.setattr("sys.argv", ["worker", str(work), str(result)])

    def measure(work, watch):
        for _ in range(work["rounds"]):
            watch.lap()
        return {"tokens": 7}

    stopwatch.serve(measure)
    found = json.loads(result.read_text())
    assert len(found["seconds"]) == len(found["phases"]) == 2
    assert found["tokens"] == 7
    assert found["peak_bytes"] > 10**7  # Python with torch
    assert {"python", "torch", "transformers"} <= set(found["versions"])

"""Tests of benchmarks/sides.py."""

import shutil

import pytest

import sides
from environments import LeftOut
from sides import Figures, Side, in_turn, run

WORKER = """
import os, sys, time
from stopwatch import serve

def measure(work, watch):
    if work.get("fails"):
        raise SystemExit("cannot do this")
    time.sleep(work.get("sleeps", 0))
    for _ in range(2):
        watch.lap()
    return {"variable": os.environ.get("VARIABLE"), "offline": os.environ["HF_HUB_OFFLINE"]}

serve(measure)
"""


@pytest.fixture
def worker(tmp_path, monkeypatch):
    """A worker's file name in a directory of its own."""
    shutil.copy(sides.HERE / "stopwatch.py", tmp_path)
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(sides, "HERE", tmp_path)
    return "worker.py"


def test_sides_run_in_turn(monkeypatch):
    order = []

    def fake(side, timeout):
        order.append(side.name)
        return {"seconds": [1.0, 2.0]}

    monkeypatch.setattr(sides, "run", fake)
    found = in_turn([Side(name=name, worker="", work={}) for name in "AB"], 3, 1.0)
    assert order == ["A", "B", "A", "B", "A", "B"]
    assert found["A"].seconds == [2.0, 2.0, 2.0]


def test_a_side_that_fails_is_left_out_and_the_others_go_on(monkeypatch):
    asked = []

    def fake(side, timeout):
        asked.append(side.name)
        if side.name == "broken":
            raise LeftOut("status 1: no such module")
        return {"seconds": [1.0, 2.0]}

    monkeypatch.setattr(sides, "run", fake)
    found = in_turn([Side(name=name, worker="", work={}) for name in ("broken", "good")], 2, 1.0)
    assert found["broken"] == Figures(runs=[], problem="status 1: no such module")
    assert len(found["good"].runs) == 2
    assert asked == ["broken", "good", "good"]


def _run(compute):
    return {"seconds": [1.0, 2.0], "phases": [{}, {}], "peak_bytes": 1, "versions": {}, **compute}


def test_a_summary_says_what_was_computed_in_and_refuses_processes_that_differ():
    low, full = {"compute": "bfloat16"}, {"compute": "float32"}
    assert Figures(runs=[_run(low), _run(low)]).summary()["compute"] == "bfloat16"
    assert "compute" not in Figures(runs=[_run({})]).summary()
    with pytest.raises(ValueError, match="computed in bfloat16 and in float32 in turn; name the type with --dtype"):
        Figures(runs=[_run(low), _run(full), _run(low)]).summary()


def test_a_process_gets_its_work_and_variables_and_reports(worker):
    found = run(Side(name="x", worker=worker, work={}, variables={"VARIABLE": "v"}), 60)
    assert len(found["seconds"]) == 2
    assert found["variable"] == "v" and found["offline"] == "1"


def test_a_worker_in_a_folder_below_reads_the_stopwatch_too(worker, tmp_path):
    (tmp_path / "workers").mkdir()
    below = shutil.move(tmp_path / worker, tmp_path / "workers" / worker)
    assert len(run(Side(name="x", worker=str(below.relative_to(tmp_path)), work={}), 60)["seconds"]) == 2


def test_a_process_that_fails_says_its_last_line(worker):
    with pytest.raises(LeftOut, match="status 1: cannot do this"):
        run(Side(name="x", worker=worker, work={"fails": True}), 60)


def test_a_process_that_takes_too_long_is_ended(worker):
    with pytest.raises(LeftOut, match="no result within 1 s"):
        run(Side(name="x", worker=worker, work={"sleeps": 60}), 1)

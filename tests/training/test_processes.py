import json
import sys

import pytest
import torch

from rlhf.errors import ConfigError
from rlhf.training import processes as processes_module
from rlhf.training.processes import Processes, is_main_by_launch

TWO = """
import json, sys
from pathlib import Path
import torch
from rlhf.errors import ConfigError
from rlhf.training import processes as module
from rlhf.training.processes import Processes

try:
    Processes(expected=3)
except ConfigError as error:
    refusal = [error.exit_status, str(error)]
processes = Processes(expected=2)
rank = processes.rank
module.FLAT_ELEMENTS = 5  # so that the tensors are summed in several calls
tensors = [torch.full((2, 2), 1.0 + rank), torch.arange(3.0) * (rank + 1), torch.tensor(10.0**rank)]
processes.sum_in_place(tensors)
processes.say(f"said by {rank}")
processes.wait()
Path(sys.argv[1], f"{rank}.json").write_text(json.dumps({
    "refusal": refusal,
    "num": processes.num,
    "is_main": processes.is_main,
    "sums": processes.sums([rank + 1, 0.1, 1e-9]),
    "any": [processes.any(rank == 1), processes.any(False), processes.any(True)],
    "tensors": [tensor.tolist() for tensor in tensors],
    "gathered": processes.gathered([{"rank": rank}] * (rank + 1)),
}))
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory, in_two_processes):
    folder = tmp_path_factory.mktemp("two")
    (folder / "two.py").write_text(TWO)
    outputs = in_two_processes([sys.executable, str(folder / "two.py"), str(folder)])
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)], outputs


def test_two_processes_know_who_they_are_and_one_of_them_speaks(two):
    results, outputs = two
    assert [result["num"] for result in results] == [2, 2]
    assert [result["is_main"] for result in results] == [True, False]
    assert [output.strip() for output in outputs] == ["said by 0", ""]


def test_sums_over_two_processes_are_the_same_on_both(two):
    for result in two[0]:
        assert result["sums"] == [3.0, 0.2, 2e-9]
        assert result["any"] == [True, False, True]
        # (1 + 2), (0, 1, 2) * (1 + 2), 1 + 10
        assert result["tensors"] == [[[3.0, 3.0], [3.0, 3.0]], [0.0, 3.0, 6.0], 11.0]


def test_gathered_items_come_in_the_order_of_the_processes(two):
    for result in two[0]:
        assert result["gathered"] == [{"rank": 0}, {"rank": 1}, {"rank": 1}]


def test_another_number_of_processes_than_expected_is_refused_with_status_2(two):
    for result in two[0]:
        assert result["refusal"][0] == 2
        assert "expected_processes: 3, but 2 started" in result["refusal"][1]
    with pytest.raises(ConfigError, match="expected_processes: 2, but 1 started - on a machine without GPU"):
        Processes(expected=2)


def test_alone_every_sum_is_the_number_itself():
    alone = Processes(expected=1)
    tensor = torch.ones(2)
    alone.sum_in_place([tensor])
    assert alone.num == 1 and alone.is_main and alone.rank == 0
    assert alone.sums([1, 0.5]) == [1.0, 0.5] and alone.any(True) and not alone.any(False)
    assert tensor.tolist() == [1.0, 1.0]
    assert alone.gathered([1, 2]) == [1, 2]


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setattr(processes_module, "get_available_trackers", lambda: ["tensorboard"])
    with pytest.raises(ConfigError, match="logging.trackers: wandb not installed"):
        Processes(trackers=["tensorboard", "wandb"])


def test_the_launcher_says_who_prints(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert is_main_by_launch()
    monkeypatch.setenv("RANK", "1")
    assert not is_main_by_launch()


FAILING = """
import json, sys, time
from pathlib import Path
from rlhf.errors import GuardStop, LostProcess
from rlhf.training.processes import Processes

processes = Processes(timeout=5)

def fail():
    if processes.rank == 1:
        raise GuardStop("not finite here")
    return 7

try:
    processes.agreed(fail)
except GuardStop as error:
    agreed = [error.exit_status, str(error)]
seen = {"agreed": agreed, "no failure": processes.agreed(lambda: 7)}
started = time.monotonic()
if processes.rank == 0:
    try:
        processes.sums([1.0])
    except LostProcess as error:
        seen["lost"] = str(error)
    seen["seconds"] = time.monotonic() - started
    Path(sys.argv[1], "done").touch()
while not Path(sys.argv[1], "done").exists():
    time.sleep(0.1)
Path(sys.argv[1], f"{processes.rank}.json").write_text(json.dumps(seen))
"""


@pytest.mark.slow
def test_an_error_of_one_process_is_raised_by_both_and_one_that_does_not_answer_is_not_waited_for(
    tmp_path, in_two_processes
):
    (tmp_path / "failing.py").write_text(FAILING)
    in_two_processes([sys.executable, str(tmp_path / "failing.py"), str(tmp_path)])
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["agreed"] == [6, "process 1: not finite here"] and second["agreed"] == [6, "not finite here"]
    assert first["no failure"] == second["no failure"] == 7
    assert "another process ended, or did not answer in time" in first["lost"] and 4 < first["seconds"] < 60

import torch

import gpu


def test_a_dry_run_measures_every_part():
    bench = gpu.made(torch.device("cpu"), {**gpu.QUICK, "rows": (2,), "new": 3})
    rows = dict(gpu.measured(bench))
    assert list(rows) == [
        "card's matrix rate", "forward and backward", "largest |ratio - 1| before an update", "sampling, 2 rows",
        "sampling, 2 rows, CUDA graphs",
    ]  # fmt: skip
    assert rows["sampling, 2 rows, CUDA graphs"].endswith("tokens/s with 0 graphs")  # a CPU has none
    assert rows["largest |ratio - 1| before an update"] == "0"


def test_what_does_not_begin_in_time_is_said_to_be_left_out():
    rows = gpu.measured(gpu.Bench(None, torch.device("cpu"), gpu.QUICK), seconds=-1.0)
    assert rows == [(part.__name__, "left out: the time was over") for part in gpu.PARTS]

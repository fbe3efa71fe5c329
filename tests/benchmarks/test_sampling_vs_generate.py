"""Tests of benchmarks/sampling_vs_generate.py, on a tiny random model."""

import json

import pytest
import torch

import sampling_vs_generate as benchmark
from arithmetic import Limits


@pytest.fixture
def quick_limits(monkeypatch):
    monkeypatch.setattr(benchmark, "measure_limits", lambda dtype, budget: Limits(flops=1e9, bytes=1e9))


def test_both_sides_sample_every_token_without_eos(model_directory):
    model = benchmark.load(model_directory, torch.float32)
    prompt_ids = torch.full((3, 5), 50)
    written = benchmark.theirs(model, prompt_ids, 6, [], 1)
    assert written.shape == (3, 6)
    assert int(benchmark.ours(model, prompt_ids, 6, [], 1).response_mask.sum()) == 3 * 6
    assert benchmark.num_tokens(written, []) == 3 * 6


def test_both_sides_stop_at_the_same_tokens(model_directory):
    model = benchmark.load(model_directory, torch.float32)
    prompt_ids, stops = torch.full((16, 5), 50), list(range(30, 128))
    theirs = benchmark.theirs(model, prompt_ids, 60, stops, 1)
    ours = benchmark.ours(model, prompt_ids, 60, stops, 1).response_ids
    # Most of the vocabulary ends a response: no row gets to 60 tokens, and a side that stops is no wider than that.
    assert theirs.shape[1] < 60 and ours.shape[1] < 60
    assert benchmark.num_tokens(theirs, stops) < 16 * 30


def test_tokens_up_to_a_stop_are_counted():
    ids = torch.tensor([[5, 9, 5, 5], [5, 5, 5, 5], [9, 0, 0, 0], [5, 5, 5, 9]])
    assert benchmark.num_tokens(ids, [9, 8]) == 2 + 4 + 1 + 4


def test_stops_end_about_a_third_of_the_rows():
    ids = torch.randint(0, 5000, (96, 63), generator=torch.Generator().manual_seed(0))
    stops = benchmark.chosen_stops(ids, seed=0)
    share = float(torch.isin(ids, torch.tensor(stops)).any(1).float().mean())
    assert 1 / 3 <= share <= 0.4


def test_ratio_is_the_median_time_of_generate_by_ours():
    found = {
        "theirs": {"seconds": [6.0, 8.0, 100.0], "tokens": [10, 10, 10]},
        "ours": {"seconds": [1.0, 2.0, 4.0], "tokens": [12, 12, 12]},
    }
    row = benchmark.row_of(found, "n", 2)
    assert row["ratio"] == 8.0 / 2.0
    assert row["ratios"] == [6.0, 4.0, 25.0]
    assert row["ours"]["tokens_per_second"] == 36 / 7 and row["ours"]["tokens_per_row"] == 6.0


def test_a_run_writes_a_row_with_and_one_without_early_eos(
    model_directory, quick_limits, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "rows.json"
    given = ["--quick", "--rows", "9", "--new-tokens", "8", "--prompt-tokens", "4", "--dtype", "float32"]
    monkeypatch.setattr("sys.argv", ["b", *given, "--model", model_directory, "--json", str(path)])
    with pytest.raises(SystemExit) as stopped:
        benchmark.main()
    rows = json.loads(path.read_text())
    assert stopped.value.code == 0
    assert [row["name"] for row in rows] == ["9 rows, no EOS, float32", "9 rows, early EOS, float32"]
    assert all(row["ratio"] == row["theirs"]["seconds"] / row["ours"]["seconds"] > 0 for row in rows)
    assert rows[0]["ours"]["tokens_per_row"] == rows[0]["theirs"]["tokens_per_row"] == 8.0
    assert rows[1]["work"]["num_stop_ids"] > 0
    assert rows[0]["share_of_limit"] > 0
    assert "| 9 rows, no EOS, float32 |" in capsys.readouterr().out

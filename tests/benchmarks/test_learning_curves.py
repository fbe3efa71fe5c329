"""Learning curves side by side: intervals over seeds, and differences within them."""

import json

import numpy as np
import pytest

import learning_curves


def _runs(directory, curves):
    paths = []
    for seed, curve in enumerate(curves):
        path = directory / f"seed{seed}"
        path.mkdir(parents=True)
        rows = [{"objective/scores": value, "objective/kl": 0.0} for value in curve]
        (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        paths.append(path)
    return paths


def test_an_interval_is_student_s_over_seeds():
    # Means of the seeds 1, 2, 3: standard deviation 1; t(0.975, 2) = 4.303.
    mean, half = learning_curves.interval(np.array([[0.0, 2.0], [2.0, 2.0], [3.0, 3.0]]))
    assert mean == 2.0
    assert half == pytest.approx(4.303 / 3**0.5, abs=1e-3)


def test_curves_end_with_the_shortest_run(tmp_path):
    runs = _runs(tmp_path, [[1.0, 2.0, 3.0], [1.0, 2.0]])
    assert learning_curves.read(runs, "objective/scores").shape == (2, 2)


def test_a_difference_is_taken_within_seeds(tmp_path):
    """Seeds far apart give wide intervals, and still a narrow difference."""
    first = _runs(tmp_path / "a", [[0.0], [10.0], [20.0]])
    second = _runs(tmp_path / "b", [[1.0], [11.0], [21.0]])
    line = learning_curves.table({"a": first, "b": second}, 1).splitlines()[2]
    assert line == "| objective/scores | 1 to 1 | 10.00 +- 24.84 | 11.00 +- 24.84 | yes | yes | -1.00 +- 0.00 |"

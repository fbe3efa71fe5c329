"""Tests of rlhf.report.sections.frontier: the curves, what is said about them, the disputed answers."""

import numpy as np
import pytest

from rlhf.report.reading.frontier import frontier_of
from rlhf.report.reading.run import read_run
from rlhf.report.sections.frontier import charts_of, frontier_sections, laws_told


@pytest.fixture
def found(planting):
    return frontier_of(planting.frontier(), "planted")


def test_points_begin_at_the_start_and_the_law_goes_through_them(found):
    ppo, best_of = charts_of(found)
    assert [line.label for line in ppo.lines] == ["gold", "gold, fitted", "proxy", "proxy, fitted"]
    points, law = ppo.lines[:2]
    assert points.points_only and (points.x[0], points.y[0]) == (0, 0) and points.x[1:].tolist() == [1, 3**0.5, 3, 5]
    assert points.high[1] - points.low[1] == pytest.approx(0.2)
    assert law.y[np.isin(law.x, points.x)] == pytest.approx(points.y)
    assert law.x[law.y.argmax()] == pytest.approx(np.e**0.5, abs=0.1)  # planted to turn at a KL of e
    assert [line.label for line in best_of.lines] == ["gold", "proxy"]  # no fits


def test_a_chart_is_read_at_its_points_with_their_intervals(found):
    chart = charts_of(found)[0]
    data = chart.data()
    assert data["name"] == "sqrt(KL in nats)" and data["stops"] == [0.0, 1.0, 1.732, 3.0, 5.0]
    assert data["lines"][0]["y"][1] == "1 [0.9, 1.1]" and data["lines"][1]["y"][0] == 0.0
    header, rows = chart.table()
    assert header[:3] == ["sqrt(KL in nats)", "gold", "gold, fitted"]
    assert [row[0] for row in rows] == ["0", "1", "1.732", "3", "5"] and rows[1][1:3] == ["1 [0.9, 1.1]", "1"]


def test_points_and_their_law_share_a_colour_and_differ_in_their_sign(found):
    chart = charts_of(found)[0]
    assert [chart.key_of(place) for place in range(4)] == ["k0 point", "k0", "k3 point", "k3"]


def test_it_is_said_where_a_law_turns_and_where_there_are_too_few_points(found):
    assert laws_told(found) == [
        "PPO, proxy: gain = d (alpha - beta log d), alpha 1 [0.8, 1.2], beta 0.1 [0.05, 0.15]; the fit never turns.",
        "PPO, gold: gain = d (alpha - beta log d), alpha 1 [0.8, 1.2], beta 0.667 [0.617, 0.717]; the fit is highest "
        "at a KL of 2.72 nats.",
        "Best of n, proxy: too few points for a fit.",
        "Best of n, gold: too few points for a fit.",
    ]


def test_the_section_shows_every_point_and_the_disputed_answers(planting, tmp_path):
    run = planting.plant(tmp_path / "run")
    assert frontier_sections(read_run(run), "r0") == []
    planting.write_frontier(run)
    (section,) = frontier_sections(read_run(run), "r0")
    assert (section.source, section.best) == ("evaluate/frontier", "step-000020")
    assert section.rows[1][:3] == ["step-000020", "3", "1.73"] and len(section.rows) == 7
    prompt, answer = section.disputed[0]
    assert prompt == planting.PROMPTS[0] and (answer.label, answer.facts) == ("step-000040", "proxy +4, gold -1.5")


@pytest.mark.parametrize(
    ("turnover", "said"),
    [(25.0, "is highest at a KL of 25 nats"), (4e16, "turns only beyond what was measured"), (None, "never turns")],
)
def test_a_turn_is_told_where_it_was_measured_and_not_beyond(planting, turnover, said):
    content = planting.frontier()
    content["laws"]["ppo"]["gold"]["turnover_kl"] = turnover
    line = next(line for line in laws_told(frontier_of(content, "planted")) if line.startswith("PPO, gold"))
    assert line.endswith(f"the fit {said}.")

"""Tests of rlhf.report.sections.comparison."""

from rlhf.report.findings.verdict import verdict
from rlhf.report.reading.run import read_run, trained_policies
from rlhf.report.sections.comparison import comparison_section, win_rates


def test_the_rows_that_matter_come_first_and_unknown_ones_follow(planting, tmp_path):
    content = planting.comparison()
    content["policies"]["ppo"]["judges"] |= {
        "embedding": {"win_rate": planting.interval(0.7, 0.1), "length_controlled": planting.interval(0.6, 0.1)},
        "panel": {"win_rate": None},
    }
    content["policies"]["ppo"]["new_number"] = 0.25
    content["human"] = {"length": planting.interval(24.0, 1.0), "new_number": 0.5}
    section = comparison_section(read_run(planting.plant(tmp_path, evaluation=content)), "r0")
    assert section.policies == ["sft", "ppo", "human text"] and section.num_prompts == "256"
    assert [row[0] for row in section.shown] == [
        "win rate against sft, gold judge",
        "win rate against sft, embedding judge",
        "win rate against sft, reward model",
        "KL to the reference, nats per sequence",
        "length, tokens",
        "win rate at equal length, embedding judge",
    ]
    assert section.shown[0][1:] == ["-", "0.880 [0.830, 0.930]", "-"]
    assert section.more[-1] == ["new number", "-", "0.250", "0.500"]


def test_every_judge_of_every_policy_has_a_win_rate_the_trained_reward_last(planting):
    content = planting.comparison()
    content["policies"]["ppo"]["judges"]["panel"] = {"win_rate": planting.interval(0.7, 0.1)}
    labels = [estimate.label for estimate in win_rates(content)]
    assert labels == ["ppo, gold judge", "ppo, panel judge", "ppo, reward model"]


def test_a_run_without_an_evaluation_has_no_comparison(planting, tmp_path):
    assert comparison_section(read_run(planting.plant(tmp_path) / "ppo"), "r0") is None


def test_the_matrix_the_audit_and_the_notes_follow(planting, tmp_path):
    content = planting.comparison()
    rate = planting.interval(0.7, 0.1)
    content["win_rates"] = {"gold": {"sft": {"ppo": planting.interval(0.3, 0.1)}, "ppo": {"sft": rate}}}
    content["rankings"] = {"gold": {"sft": planting.interval(0.0, 0.0), "ppo": planting.interval(0.8, 0.2)}}
    content["audits"] = {"reward": {"ties": 0.0, "flipped": None, "agreement": {"gold": 0.9}}, "gold": {"ties": 0.25}}
    content["notes"] = ["length explains a part"]
    section = comparison_section(read_run(planting.plant(tmp_path, evaluation=content)), "r0")
    matrix, audit = section.further
    assert matrix.title == "Row wins against column, gold judge" and matrix.header[1:3] == ["sft", "ppo"]
    assert matrix.rows[0] == ["ppo", "0.700 [0.600, 0.800]", "-", "0.800 [0.600, 1.000]"]
    assert audit.header == ["", "gold judge", "reward model"]
    assert audit.rows == [["share of ties", "0.250", "0.000"], ["agrees with the gold judge", "-", "0.900"]]
    assert section.notes == ["length explains a part"]


def test_a_best_of_n_is_no_policy_that_the_verdict_is_about(planting, tmp_path):
    content = planting.comparison()
    content["policies"]["ppo.best_of_4"] = {
        "kl_bound": 0.6,
        "judges": {"gold": {"win_rate": planting.interval(0.1, 0.05)}},
    }
    run = read_run(planting.plant(tmp_path, evaluation=content))
    assert list(trained_policies(content)) == ["sft", "ppo"]
    assert verdict(run, []).headline == "Better"
    assert "ppo.best_of_4" in comparison_section(run, "r0").policies

"""Tests of rlhf.report.sections.comparison."""

from rlhf.report.reading.run import read_run
from rlhf.report.sections.comparison import comparison_section, win_rates


def test_the_rows_that_matter_come_first_and_unknown_ones_follow(planting, tmp_path):
    content = planting.comparison()
    content["policies"]["ppo"] |= {"embedding_win_rate": planting.interval(0.7, 0.1), "panel_win_rate": None}
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
        "distinct bigrams over all",
    ]
    assert section.shown[0][1:] == ["-", "0.880 [0.830, 0.930]", "-"]
    assert section.more[-1] == ["new number", "-", "0.250", "0.500"]


def test_every_judge_of_every_policy_has_a_win_rate_the_trained_reward_last(planting):
    content = planting.comparison()
    content["policies"]["ppo"]["panel_win_rate"] = planting.interval(0.7, 0.1)
    labels = [estimate.label for estimate in win_rates(content)]
    assert labels == ["ppo, gold judge", "ppo, panel judge", "ppo, reward model"]


def test_a_run_without_an_evaluation_has_no_comparison(planting, tmp_path):
    assert comparison_section(read_run(planting.plant(tmp_path) / "ppo"), "r0") is None

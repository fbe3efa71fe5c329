"""Tests of rlhf.report.sections.heat."""

from rlhf.report.reading.run import read_run
from rlhf.report.sections.heat import episodes_of


def test_tokens_have_a_shade_for_each_number_and_forced_ones_none(planting, tmp_path):
    run = planting.plant(tmp_path)
    texts = [" one", " two", " three", " four"]
    numbers = {"advantage": [0.0, -2.0, 0.0, 2.0], "ratio": [0.0, 1.0, 1.5, 0.5], "surprise": [0.0, 0.0, 1.0, 4.0]}
    numbers["token_score"] = [0.0] * 4  # the reward gives none
    row = {"prompt": "p", "response": "x", "score": 1.5, "tokens": 9, "trace": {"text": texts, "forced": 1, **numbers}}
    for path in (run / "ppo" / "samples").glob("*.jsonl"):
        path.unlink()
    planting.write_rows(run / "ppo" / "samples" / "step-000003.jsonl", [row])
    (episode,) = episodes_of(read_run(run))
    assert episode.title == "Step 3, score 1.5" and episode.left_out == 5 and episode.has_forced
    assert episode.labels == ["advantage", "ratio in the last epoch", "surprise (-logprob), nats"]
    assert [token.text for token in episode.tokens] == texts
    assert [token.levels for token in episode.tokens] == ["0 0 0", "-4 0 0", "0 4 1", "4 -4 4"]
    assert episode.tokens[0].told == "forced, not sampled"
    assert episode.tokens[3].told == "advantage 2, ratio in the last epoch 0.5, surprise (-logprob), nats 4"


def test_the_first_the_middle_and_the_last_step_are_shown(planting, tmp_path):
    titles = [episode.title.split(",")[0] for episode in episodes_of(read_run(planting.plant(tmp_path)))]
    assert titles == ["Step 1", "Step 30", "Step 60"]


def test_a_trace_of_another_shape_is_left_out(planting, tmp_path):
    run = planting.plant(tmp_path)
    row = {"prompt": "p", "response": "x", "trace": {"text": ["a", "b"], "advantage": [1.0], "kl": [0.1, "x"]}}
    planting.write_rows(run / "ppo" / "samples" / "step-000001.jsonl", [row])
    assert episodes_of(read_run(run))[0].labels == []

import json

import pytest

from rlhf.forecast.comparison import FITTED_ROWS, Asked, evaluation_load
from rlhf.functional.flops import Matrices, ModelMatrices, causal_work, forward_flops

MATRICES = Matrices(trunk=100, scores=10, head=1000)
MODEL = ModelMatrices(used=MATRICES, crossed=MATRICES, trained=MATRICES)


def test_answers_are_read_as_often_as_there_are_prompts():
    asked = Asked(prompts=[3, 5], responses=[2, 4], num=20)
    assert asked.read(MODEL, predicts=True).inference == 10 * forward_flops(MODEL, causal_work([5, 9], 6))
    assert asked.read(MODEL, predicts=False).inference == 10 * forward_flops(MODEL, causal_work([5, 9], 2))


@pytest.mark.slow
def test_every_policy_reads_its_answers_and_the_reference_those_of_the_others(recipe):
    def inference(*overrides):
        run = recipe("evaluate.reward_model=null", "evaluate.gold=null", *overrides)
        return evaluation_load(run.evaluate, run)[0].inference

    alone = "evaluate.policies={sft: '{run_dir}/sft/policy'}"
    once = inference(alone)
    assert once > 0
    both = inference("evaluate.policies={sft: '{run_dir}/sft/policy', ppo: '{run_dir}/ppo/policy'}")
    assert both == 3 * once
    assert inference(alone, "evaluate.fluency_model=data/tiny_model") == 2 * once
    assert inference(alone, "evaluate.samples_per_prompt=3") == 3 * once
    assert inference(alone, "evaluate.best_of={n: 4, policy: sft, judge: x}") == 2 * once  # the winners are read again


@pytest.mark.slow
def test_the_gold_judge_takes_time_for_each_row(recipe, tmp_path):
    path = tmp_path / "gold.jsonl"
    path.write_text((json.dumps({"text": "a film", "label": 1}) + "\n") * 280)

    def seconds(*overrides):
        run = recipe(*overrides)
        return evaluation_load(run.evaluate, run)[0]

    gold = seconds(f"evaluate.gold={{train: {path}, heldout: {path}}}")
    assert abs(gold.seconds - seconds("evaluate.gold=null").seconds - 280 / FITTED_ROWS) < 0.09
    assert gold.encoding == 0.0

"""Evaluation and serving on an emulated GPU mix no devices."""

import json

import pytest
from transformers import AutoTokenizer

from rlhf.config import EvaluateConfig
from rlhf.evaluation import evaluate
from rlhf.serving.served_reward import ScoreRequest, model_source


@pytest.mark.slow
def test_a_comparison_of_policies_mixes_no_devices(gpu, workshop, tmp_path):
    given = {
        "output_dir": str(tmp_path / "evaluate"),
        "policies": {"ppo": str(workshop / "policy"), "twin": str(workshop / "policy")},
        "prompts": {"path": str(workshop / "prompts.jsonl"), "max_length": 32},
        "decoding": {"max_new_tokens": 6},
        "reward_model": str(workshop / "reward_model"),
        "precision": "bfloat16",
        "reference": str(workshop / "policy"),
        "fluency_model": str(workshop / "policy"),
    }
    summary = evaluate(EvaluateConfig(**given))
    assert set(json.loads(summary.with_name("comparison.json").read_text())["policies"]) == {"ppo", "twin"}
    assert gpu.operations["mm"] + gpu.operations["addmm"] > 0


def test_a_served_reward_model_mixes_no_devices(gpu, workshop):
    source = model_source(str(workshop / "reward_model"), "bfloat16", "cuda")
    assert source.reward.model.classifier.device.type == "cuda"
    tokenizer = AutoTokenizer.from_pretrained(workshop / "policy")
    texts = ["The film was good", "A film" + tokenizer.eos_token]
    with gpu.counted() as waits:
        scores = source.reward.score(source.episodes(ScoreRequest(query=texts)))
    assert len(scores) == 2 and sum(waits.values()) <= 5

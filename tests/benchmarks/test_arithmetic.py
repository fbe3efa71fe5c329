"""Tests of benchmarks/arithmetic.py."""

import json

import pytest

import arithmetic
from arithmetic import Limits, ModelShape, forward_flops, sampling_seconds, shape_of, training_seconds, update_seconds

SHAPE = ModelShape(trunk=100, head=10)
LIMITS = Limits(flops=1000.0, bytes=50.0)


def test_the_shape_counts_the_weights_of_every_product(model_directory, tiny_model):
    shape = shape_of(model_directory)
    model = tiny_model("llama")
    blocks = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name)
    assert shape.trunk == blocks
    assert shape.head == model.lm_head.weight.numel()


def test_a_model_of_another_kind_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 32}))
    with pytest.raises(ValueError, match="no 'hidden_size'"):
        shape_of(str(tmp_path))


def test_a_forward_pass_by_hand():
    # 2 operations x (100 weights x 7 tokens + 10 weights x 3 predicted tokens)
    assert forward_flops(SHAPE, 7, 3) == 2 * (700 + 30)


def test_an_update_by_hand():
    # 2 rows x (3 + 4) tokens = 14, of which 8 are predicted: a full forward is 2 (1400 + 80) = 2960, a trunk's 2800.
    # Sampling and reference 2 x 2960, reward 2800, 5 epochs of 3 x 2960; a critic adds 5 x 3 x 2800.
    sizes = {"rows": 2, "prompt_tokens": 3, "new_tokens": 4, "epochs": 5}
    shared = update_seconds(SHAPE, LIMITS, **sizes, separate_critic=False)
    separate = update_seconds(SHAPE, LIMITS, **sizes, separate_critic=True)
    assert shared == pytest.approx((2 * 2960 + 2800 + 5 * 3 * 2960) / 1000)
    assert separate - shared == pytest.approx(5 * 3 * 2800 / 1000)


def test_training_is_three_forward_passes():
    assert training_seconds(SHAPE, LIMITS, 7) == 3 * arithmetic.forward_flops(SHAPE, 7, 7) / 1000


@pytest.mark.parametrize(("rows", "step"), [(1, 4.4), (100, 22.0)])
def test_a_decode_step_is_bound_by_its_weights_or_by_its_products(rows, step):
    # 110 weights x 2 bytes / 50 = 4.4 s; 100 rows x 220 operations / 1000 = 22 s. Prompts: 2 (100 x 5 + 10) a row.
    sizes = {"rows": rows, "prompt_tokens": 5, "new_tokens": 4, "bytes_per_weight": 2}
    assert sampling_seconds(SHAPE, LIMITS, **sizes) == pytest.approx(rows * 1.02 + 3 * step)

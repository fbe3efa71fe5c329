"""Our counts of operations against those of torch, which counts every product as it is executed."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from rlhf.batches import join
from rlhf.functional.flops import backward_flops, causal_work, forward_flops
from rlhf.models.passes.anatomy import hidden_states
from rlhf.models.passes.head import head_logprobs
from rlhf.models.passes.matrices import frozen_matrices, largest_matrix, model_matrices
from rlhf.models.policy import PolicyWithValueHead
from rlhf.models.pretrained.adapters import add_lora
from rlhf.models.pretrained.depth import freeze_all_but_top
from rlhf.models.pretrained.quantization import quantize

LENGTH, PREDICTED = 11, 4
IDS = torch.arange(3, 3 + 2 * LENGTH).view(2, LENGTH)
WORK = causal_work([LENGTH] * 2, 2 * PREDICTED)
MASKED_PAIRS = 2 * LENGTH * (LENGTH - 1) // 2
"""Scores of a token and a later one: torch's eager attention computes them, ours are not counted."""


@pytest.fixture(params=["gpt2", "llama", "qwen3"])
def model(request, tiny_model):
    return tiny_model(request.param, attn_implementation="eager")


def in_place_product(self_shape, left_shape, right_shape, **_):
    """`addmm_`, which adds up the head's weight gradient and which torch leaves out of its count."""
    return 2 * left_shape[0] * left_shape[1] * right_shape[1]


def counted(model, function):
    """Return what torch counts, without the rotary angles (a product of positions and frequencies)."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place_product}) as counter:
        function()
    by_module = counter.get_flop_counts()
    rotary = sum(sum(counts.values()) for name, counts in by_module.items() if name.endswith("rotary_emb"))
    return counter.get_total_flops() - rotary


def masked(matrices):
    return 4 * matrices.scores * MASKED_PAIRS


def logprobs(model):
    hidden = hidden_states(model, IDS)[:, -PREDICTED - 1 : -1].flatten(0, 1)
    return head_logprobs(model, hidden, IDS[:, -PREDICTED:].flatten(), 1.0)[0]


def heads(model):
    return [model.get_output_embeddings()]


@torch.no_grad()
def test_a_forward_pass_has_the_operations_that_torch_counts(model):
    matrices = model_matrices(model, heads(model))
    expected = forward_flops(matrices, WORK) + masked(matrices.used)
    assert counted(model, lambda: logprobs(model)) == expected


@pytest.mark.sweep
@torch.no_grad()
def test_decoding_token_by_token_has_the_operations_that_torch_counts(model):
    matrices = model_matrices(model, heads(model))

    def decode():
        cache = DynamicCache(config=model.config)
        for place in range(LENGTH):
            model(input_ids=IDS[:, place : place + 1], past_key_values=cache, use_cache=True)

    assert counted(model, decode) == forward_flops(matrices, causal_work([LENGTH] * 2, 2 * LENGTH))


@pytest.mark.parametrize("num_trained", [None, 1, 2])
def test_a_training_pass_has_the_operations_that_torch_counts(model, num_trained):
    if num_trained is not None:
        freeze_all_but_top(model, num_trained)
    matrices = model_matrices(model, heads(model))
    expected = forward_flops(matrices, WORK) + masked(matrices.used)
    expected += backward_flops(matrices, WORK) + masked(matrices.crossed) + masked(matrices.trained)
    assert counted(model, lambda: logprobs(model).sum().backward()) == expected


def test_nothing_is_counted_backward_below_the_lowest_trained_block(model):
    full = model_matrices(model, heads(model))
    freeze_all_but_top(model, 1)
    part = model_matrices(model, heads(model))
    assert part.used == full.used
    assert part.crossed.trunk == part.trained.trunk == full.crossed.trunk // 2
    assert part.crossed.head == full.crossed.head and part.trained.head == 0


def test_adapters_cost_what_torch_counts_but_for_the_first_inputs(tiny_model):
    model = tiny_model("llama", attn_implementation="eager")
    base = model_matrices(model, heads(model)).used
    rank, hidden, keys = 4, 32, 16
    add_lora(model, r=rank, alpha=8.0, dropout=0.0, target_modules="all-linear")
    matrices = model_matrices(model, heads(model))
    # Nothing trained lies before the first block, so its inputs to q, k and v have no gradient: neither through the
    # frozen matrices nor through those of the adapters that read them.
    no_gradient = 2 * WORK.tokens * (hidden * hidden + 2 * hidden * keys + 3 * hidden * rank)
    expected = forward_flops(matrices, WORK) + masked(matrices.used)
    expected += backward_flops(matrices, WORK) + masked(matrices.crossed) + masked(matrices.trained) - no_gradient
    assert counted(model, lambda: logprobs(model).sum().backward()) == expected
    assert frozen_matrices(model, heads(model)).used == base


def test_a_policy_has_two_heads_at_response_positions(tiny_model):
    policy = PolicyWithValueHead(tiny_model("llama", attn_implementation="eager"))
    prompts, responses = IDS[:, :-PREDICTED], IDS[:, -PREDICTED:]
    sequences = join(prompts, prompts > 0, responses, responses > 0)
    matrices = model_matrices(policy.lm, [*heads(policy.lm), policy.value_head])

    def learn():
        output = policy(sequences, PREDICTED, 1.0)
        (output.logprobs.sum() + output.values.sum()).backward()

    expected = forward_flops(matrices, WORK) + backward_flops(matrices, WORK) + 3 * masked(matrices.used)
    assert counted(policy, learn) == expected


def test_a_frozen_model_is_only_read(model):
    model.requires_grad_(False)
    matrices = frozen_matrices(model, heads(model))
    assert matrices == model_matrices(model, heads(model))
    assert backward_flops(matrices, WORK) == 0 < forward_flops(matrices, WORK)


def test_the_largest_matrix_of_a_block_is_that_of_its_mlp(tiny_model):
    assert sorted(largest_matrix(tiny_model("llama"))) == [32, 64]
    assert sorted(largest_matrix(tiny_model("gpt2"))) == [32, 128]


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_quantized_layers_count_as_the_matrices_that_they_stand_for(tiny_model, kind):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'rlhf-ppo[quantized]'")
    plain, quantized = tiny_model(), tiny_model()
    quantize(quantized, kind)
    assert largest_matrix(quantized) in {largest_matrix(plain), largest_matrix(plain)[::-1]}
    for each in (plain, quantized):
        add_lora(each, r=2, alpha=4.0, dropout=0.0, target_modules="all-linear")
    for count in (model_matrices, frozen_matrices):
        assert count(quantized, [quantized.lm_head]) == count(plain, [plain.lm_head])

"""The policy says the same about a response whatever stands around it."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rlhf.batches import join
from rlhf.models.policy import PolicyWithValueHead, sequence_logprobs

PROMPTS, RESPONSES = ([5, 6, 7, 8, 9], [10], [11, 12]), ([20, 21, 2], [22, 23, 24, 25], [2])
# float32 through two layers and a softmax over 128: a few hundred roundings of 2^-24, logits up to some tens.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def _padded(rows, *, extra: int = 0, content: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows)) + extra
    ids = torch.tensor([[*row, *[content] * (width - len(row))] for row in rows])
    return ids, torch.arange(width)[None] < torch.tensor([[len(row)] for row in rows])


def _joined(rows=range(3), **padding):
    prompts, responses = [PROMPTS[row] for row in rows], [RESPONSES[row] for row in rows]
    return join(*_padded(prompts, **padding), *_padded(responses, **padding))


def _policy(lm) -> PolicyWithValueHead:
    policy = PolicyWithValueHead(lm)
    torch.nn.init.normal_(policy.value_head.linear.weight, generator=torch.Generator().manual_seed(0))
    return policy


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@torch.no_grad()
def test_logprobs_and_entropy_equal_the_models_own_forward(tiny_model, family, temperature):
    lm = tiny_model(family)
    output = PolicyWithValueHead(lm)(_joined(), 4, temperature, with_entropy=True)
    for row, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        logp = torch.log_softmax(lm(torch.tensor([prompt + response])).logits[0].double() / temperature, -1)
        logp = logp[len(prompt) - 1 : -1]
        n = len(response)
        expected = logp[torch.arange(n), response].float()
        torch.testing.assert_close(output.logprobs[row, :n], expected, **TOLERANCE)
        torch.testing.assert_close(output.entropy[row, :n], -(logp.exp() * logp).sum(-1).float(), **TOLERANCE)
        assert not output.logprobs[row, n:].any() and not output.entropy[row, n:].any()


@torch.no_grad()
def test_a_batch_says_what_each_row_alone_says(tiny_model, family):
    policy = _policy(tiny_model(family))
    batch = policy(_joined(), 4, 1.0)
    for row in range(3):
        alone = policy(_joined([row]), 4, 1.0)
        torch.testing.assert_close(batch.logprobs[row], alone.logprobs[0], **TOLERANCE)
        torch.testing.assert_close(batch.values[row], alone.values[0], **TOLERANCE)


@torch.no_grad()
def test_padding_content_reaches_nothing(tiny_model):
    policy = _policy(tiny_model("llama"))
    zeros, others = policy(_joined(extra=3), 7, 1.0), policy(_joined(extra=3, content=77), 7, 1.0)
    assert torch.equal(zeros.logprobs, others.logprobs)
    assert torch.equal(zeros.values, others.values)
    # Also what stands in the joined batch itself after the end.
    sequences = _joined()
    after = torch.arange(sequences.input_ids.shape[1])[None] >= sequences.lengths[:, None]
    sequences.input_ids[after] = 99
    torch.testing.assert_close(policy(sequences, 4, 1.0).logprobs, zeros.logprobs[:, :4], rtol=0, atol=0)
    assert bool(zeros.logprobs.isfinite().all())


def test_padding_gets_no_gradient(tiny_model):
    policy = _policy(tiny_model("llama", tie_word_embeddings=False))
    sequences = _joined()
    after = torch.arange(sequences.input_ids.shape[1])[None] >= sequences.lengths[:, None]
    sequences.input_ids[after] = 99
    output = policy(sequences, 4, 1.0)
    (output.logprobs.sum() + output.values.sum()).backward()
    gradient = policy.lm.get_input_embeddings().weight.grad
    assert not gradient[99].any()
    assert gradient[5].any()


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("with_grad", [True, False])
def test_only_hidden_states_that_predict_a_response_token_meet_the_vocabulary(tiny_model, family, with_grad):
    policy, rows = PolicyWithValueHead(tiny_model(family)), []

    class Spy(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.overloadpacket is torch.ops.aten.mm and args[1].shape == (32, 128):
                rows.append(args[0].shape)
            return function(*args, **(kwargs or {}))

    with torch.set_grad_enabled(with_grad), Spy():
        policy(_joined(), 4, 1.0, with_entropy=True)
    assert rows == [(8, 32)]  # 3 + 4 + 1 response tokens


@torch.no_grad()
def test_values_start_at_zero_and_are_float32_in_a_bfloat16_model(tiny_model):
    policy = PolicyWithValueHead(tiny_model("llama"))
    policy.lm.to(torch.bfloat16)
    output = policy(_joined(), 4, 1.0)
    assert not output.values.any()
    assert {output.values.dtype, output.logprobs.dtype, output.entropy.dtype} == {torch.float32}


@torch.no_grad()
def test_the_value_of_a_token_is_read_before_it_is_emitted(tiny_model):
    lm = tiny_model("llama")
    policy = _policy(lm)
    values = policy(_joined([0]), 3, 1.0).values[0]
    states = lm.base_model(torch.tensor([PROMPTS[0] + RESPONSES[0]])).last_hidden_state[0, 4:7]
    torch.testing.assert_close(values, (states @ policy.value_head.linear.weight.T).squeeze(-1), **TOLERANCE)


@torch.no_grad()
def test_a_critic_gives_the_values_and_the_policy_the_logprobs(tiny_model):
    lm, critic = tiny_model("llama"), tiny_model("llama", seed=1)
    policy = PolicyWithValueHead(lm, critic)
    policy.value_head.load_state_dict(_policy(critic).value_head.state_dict())
    output = policy(_joined(), 4, 1.0)
    assert torch.equal(output.values, _policy(critic)(_joined(), 4, 1.0).values)
    assert torch.equal(output.logprobs, sequence_logprobs(lm, _joined(), 4, 1.0))


@torch.no_grad()
def test_dropout_is_off_in_training_mode_too(tiny_model):
    lm = tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    policy = PolicyWithValueHead(lm)
    first = policy(_joined(), 4, 1.0).logprobs
    assert torch.equal(first, policy.train()(_joined(), 4, 1.0).logprobs)

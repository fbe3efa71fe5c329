"""Arithmetic that goes another way on a GPU, beside the way of a CPU."""

import torch

from rlhf.models.passes.head import LOGIT_CHUNK, head_logprobs
from rlhf.sampling.inverse_cdf import cumulated, draw_tokens


def test_draws_from_integer_sums_are_those_from_float64_sums(gpu):
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(400, 3000, generator=generator)
    uniforms = torch.rand(400, dtype=torch.float64, generator=generator)
    expected = draw_tokens(logits, uniforms, 0.8)
    found = draw_tokens(logits.to("cuda"), uniforms.to("cuda"), 0.8)
    assert found.ids.tolist() == expected.ids.tolist()
    torch.testing.assert_close(found.logprobs.cpu(), expected.logprobs, rtol=0, atol=1e-6)
    assert gpu.operations["cumsum"] > 0


def test_integer_sums_of_a_whole_vocabulary_are_exact(gpu):
    vocabulary = 2**18
    weights = torch.ones(1, vocabulary // 256, device="cuda") * 256  # every token as probable as any other
    sums = cumulated(weights, vocabulary)
    assert sums.tolist()[0] == [256.0 * place for place in range(1, vocabulary // 256 + 1)]
    improbable = torch.tensor([[1.0, 0.0, 2.0**-30, 0.0]], device="cuda")
    assert cumulated(improbable, vocabulary).tolist() == [[1.0, 1.0, 1.0 + 2.0**-30, 1.0 + 2.0**-30]]


def test_the_vocabulary_head_reads_a_chunk_in_one_call_each_way(gpu, tiny_model):
    model = tiny_model("llama").to("cuda")
    hidden = torch.randn(100, 32, generator=torch.Generator().manual_seed(0))
    targets, found = torch.arange(100), []
    assert len(hidden) < LOGIT_CHUNK
    for device in ("cpu", "cuda"):
        model.to(device)
        states = hidden.clone().to(device).detach().requires_grad_()
        before = gpu.operations["logsumexp"] + gpu.operations["scatter_add_"]
        logprobs, entropies = head_logprobs(model, states, targets.to(device), 0.9, with_entropy=True)
        (logprobs.sum() + entropies.square().sum()).backward()
        calls = gpu.operations["logsumexp"] + gpu.operations["scatter_add_"] - before
        found.append([each.detach().cpu() for each in (logprobs, entropies, states.grad)])
        model.zero_grad(set_to_none=True)
    assert calls == 2
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)

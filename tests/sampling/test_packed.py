"""Tests of rlhf.sampling.packed, against the plain decoder and the model's own forward."""

import copy
import gc
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.batches import PromptBatch, Samples
from rlhf.functional.attention import grouped_attention
from rlhf.kernels.library import library
from rlhf.sampling import packed, sampler
from rlhf.sampling.decoder import Decoder
from rlhf.sampling.packed import PackedDecoder, PackedLinear, PackedModel, is_packable
from rlhf.sampling.sampler import make_decoder, sample

FAMILIES = ["llama", "mistral", "qwen2"]
Factory = Callable[..., PreTrainedModel]
Tolerance = Callable[[Any, PromptBatch, Samples], float]
pytestmark = pytest.mark.usefixtures("packs_bfloat16")


def _prompts(*lengths: int) -> PromptBatch:
    mask = torch.arange(max(lengths) + 2) < torch.tensor(lengths)[:, None]
    ids = torch.randint(3, 128, mask.shape, generator=torch.Generator().manual_seed(1))
    return PromptBatch(prompt_ids=ids * mask, prompt_mask=mask)


def _repeated(prompts: PromptBatch, *index: int) -> PromptBatch:
    return prompts.rows(torch.tensor(index))


def _with_biases(model: Any) -> Any:
    """A head with a bias, and of one block's queries, keys and values only the keys with one."""
    generator = torch.Generator().manual_seed(3)
    for linear in (model.lm_head, model.model.layers[0].self_attn.k_proj, model.model.layers[1].mlp.down_proj):
        linear.bias = nn.Parameter(torch.randn(linear.out_features, generator=generator))
    return model


VARIANTS: dict[str, tuple[str, dict[str, Any], Callable[[Any], Any]]] = {
    "llama": ("llama", {}, lambda model: model),
    "mistral": ("mistral", {}, lambda model: model),
    "qwen2": ("qwen2", {}, lambda model: model),
    "tied": ("llama", {"tie_word_embeddings": True}, lambda model: model),
    "biased": ("llama", {}, _with_biases),
    "all biased": ("llama", {"attention_bias": True, "mlp_bias": True}, lambda model: model),
    "one key head": ("llama", {"num_key_value_heads": 1}, lambda model: model),
    "wide heads": ("llama", {"head_dim": 64}, lambda model: model),
    "linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 3.0}}, lambda model: model),
    "copied": ("llama", {}, copy.deepcopy),
    "requires no gradient": ("llama", {}, lambda model: model.requires_grad_(False)),
}


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_the_packed_decoder_gives_the_logits_of_the_plain_one(
    build: Factory, roundings: ModuleType, variant: str, compiled: bool
) -> None:
    if compiled and library() is None:
        pytest.skip("no g++ here")
    family, changes, change = VARIANTS[variant]
    model = change(build(family, **changes))
    assert is_packable(model)
    prompts = _repeated(_prompts(3, 11, 6, 11), 0, 1, 0, 2, 3, 2)
    found = PackedDecoder(PackedModel(model, 6, compiled_kernels=compiled), prompts, 8)
    plain = Decoder(model, prompts, 8)
    assert found._model.kernels.is_compiled == compiled
    _compare_steps(found, plain, [[4, 0, 2, 5, 1], [3, 0], [1]], _near(roundings, model))


def _near(roundings: ModuleType, model: PreTrainedModel) -> Callable[[Tensor, Tensor], None]:
    """A comparison of logits of at most 19 tokens by two decoders."""

    def compare(found: Tensor, expected: Tensor) -> None:
        atol = roundings.apart(float(expected.abs().max()), roundings.of_a_pass(model.config, 19))
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)

    return compare


def _compare_steps(
    found: PackedDecoder, plain: Decoder, leaving: list[list[int]], compare: Callable[[Tensor, Tensor], None]
) -> None:
    """Compare eight steps, in which the rows of `leaving` stay after steps 1, 3 and 5, in that order."""
    generator = torch.Generator().manual_seed(2)
    ours, theirs = found.read_prompts(), plain.read_prompts()
    for step in range(8):
        assert ours.shape == theirs.shape
        compare(ours, theirs)
        if step % 2 and leaving:
            index = torch.tensor(leaving.pop(0))
            found.keep_rows(index)
            plain.keep_rows(index)
            ours = ours[index]
        ids = torch.randint(3, 128, (len(ours),), generator=generator)
        ours, theirs = found.read_tokens(ids), plain.read_tokens(ids)
    assert not leaving


@pytest.mark.parametrize("variant", ["llama", "one key head", "wide heads"])
@torch.no_grad()
def test_prompts_beyond_the_limit_are_read_one_by_one_with_the_same_logits(
    build: Factory, roundings: ModuleType, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """Torch's attention of each prompt, the products of all of them, and the plain decoder."""
    family, changes, _ = VARIANTS[variant]
    model, prompts = build(family, **changes), _repeated(_prompts(3, 11, 6), 0, 1, 0, 2)
    products: list[Tensor] = []

    def noted(queries: Tensor, *given: Any) -> Tensor:
        products.append(queries)
        return grouped_attention(queries, *given)

    monkeypatch.setattr(packed, "grouped_attention", noted)
    together = PackedDecoder(PackedModel(model, 4), prompts, 8)
    expected = together.read_prompts()
    assert len(products) == 2, "one a layer"
    monkeypatch.setattr(packed, "LONGEST", 10)
    alone = PackedDecoder(PackedModel(model, 4), prompts, 8)
    compare = _near(roundings, model)
    compare(alone.read_prompts(), expected)
    assert len(products) == 2, "none of a prompt beyond the limit"
    again = PackedDecoder(PackedModel(model, 4), prompts, 8)
    _compare_steps(again, Decoder(model, prompts, 8), [[3, 0], [1]], compare)


@torch.no_grad()
def test_the_memory_for_long_prompts_does_not_grow_with_their_square(build: Factory) -> None:
    """4 heads of scores of 2 prompts of 1,200 tokens are 46 MB in float32; a token's widest states are 128 numbers."""
    model = build("llama", max_position_embeddings=1300)
    prompts = _prompts(1200, 1100)
    decoder = PackedDecoder(PackedModel(model, 2), prompts, 2)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        decoder.read_prompts()
    largest = max(event.cpu_memory_usage for event in seen.events())
    assert largest <= 2 * 1200 * 128 * 4


@torch.no_grad()
def test_bfloat16_stays_near_float32(build: Factory) -> None:
    """Against float32, as root mean squares over the logits.

    Sums are float32; what passes from one step to the next is rounded, by at most u = 2^-8: in a layer two norms of two
    steps, four products with their weights (8), rotation (2), scores, weights, mix, the gate's two steps, two
    residuals, 21 in all. Two layers, the embedding and its weights, the last norm and the head with its weights: 48,
    which add up in quadrature.
    """
    model, prompts = build("llama", initializer_range=0.1), _prompts(3, 11, 6)
    exact = Decoder(model, prompts, 2)
    low = copy.deepcopy(model).bfloat16()
    decoders = [PackedDecoder(PackedModel(low, 3), prompts, 2), Decoder(low, prompts, 2)]
    for logits in ([each.read_prompts() for each in (exact, *decoders)],
                   [each.read_tokens(torch.tensor([5, 6, 7])) for each in (exact, *decoders)]):  # fmt: skip
        expected, packed, plain = (each.float() for each in logits)
        assert logits[1].dtype == torch.bfloat16
        packed_error, plain_error = (float((each - expected).norm()) for each in (packed, plain))
        most = 48**0.5 * 2**-8 * float(expected.norm())
        assert 0 < packed_error < most and 0 < plain_error < most


def _sampled(model: Any, prompts: PromptBatch, **changes: Any) -> Samples:
    settings = {"max_new_tokens": 24, "temperature": 1.0, "eos_ids": tuple(range(3, 13))}
    return sample(model, prompts, generator=torch.Generator().manual_seed(7), **(settings | changes))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_sampled_ids_are_those_of_the_plain_decoder(
    build: Factory, logprob_tolerance: Tolerance, monkeypatch: pytest.MonkeyPatch, family: str, temperature: float
) -> None:
    model, prompts = build(family), _repeated(_prompts(3, 12, 7, 5), 0, 1, 2, 3, 1, 1, 0, 2)
    assert isinstance(make_decoder(model, prompts, 4), PackedDecoder)
    found = _sampled(model, prompts, temperature=temperature)
    monkeypatch.setattr(sampler, "is_packable", lambda model: False)
    assert isinstance(make_decoder(model, prompts, 4), Decoder)
    expected = _sampled(model, prompts, temperature=temperature)
    assert torch.equal(found.response_ids, expected.response_ids) and torch.equal(found.ended, expected.ended)
    atol = logprob_tolerance(model, prompts, expected)
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=0, atol=atol)
    assert bool(found.ended.any())


def test_sampling_works_without_a_compiler(build: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = build("llama"), _prompts(3, 12, 7, 5)
    expected = _sampled(model, prompts)
    monkeypatch.setattr("rlhf.kernels.decoding.library", lambda: None)
    assert not PackedModel(model, 4).kernels.is_compiled
    assert torch.equal(_sampled(model, prompts).response_ids, expected.response_ids)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_does_not_change_what_is_said(
    build: Factory, threads: Callable[[int], None], dtype: torch.dtype
) -> None:
    model, prompts, seen = build("llama").to(dtype), _prompts(3, 12, 7, 5), []
    for num in (1, 2):
        threads(num)
        seen.append(_sampled(model, prompts))
    assert torch.equal(seen[0].response_ids, seen[1].response_ids)
    assert torch.equal(seen[0].logprobs, seen[1].logprobs)


def test_weights_that_change_are_seen_by_the_next_call(build: Factory) -> None:
    model, prompts = build("llama"), _prompts(3, 12)
    before = _sampled(model, prompts)
    other = build("llama", seed=1)
    with torch.no_grad():
        for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
            mine.copy_(theirs)
    after = _sampled(model, prompts)
    assert torch.equal(after.response_ids, _sampled(other, prompts).response_ids)
    assert after.response_ids.tolist() != before.response_ids.tolist()


def test_packed_weights_are_given_back_after_each_call(build: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without waiting for the garbage collector: a cycle would hold several copies of the model."""
    alive: list[weakref.ref[Any]] = []

    class Noted(PackedModel):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            alive.extend([weakref.ref(self), weakref.ref(self.blocks[0].qkv)])

    monkeypatch.setattr(sampler, "PackedModel", Noted)
    gc.disable()
    try:
        for _ in range(2):
            _sampled(build("llama"), _prompts(3, 12))
        given_back = [reference() is None for reference in alive]
    finally:
        gc.enable()
    assert given_back == [True] * 4


@pytest.mark.parametrize("compiled", [True, False])
def test_it_works_with_gradients_switched_on_and_builds_no_graph(build: Factory, compiled: bool) -> None:
    model = build("qwen2")
    assert model.model.layers[0].self_attn.q_proj.bias.requires_grad
    decoder = PackedDecoder(PackedModel(model, 2, compiled_kernels=compiled), _prompts(3, 5), 2)
    assert not decoder.read_prompts().requires_grad
    assert not decoder.read_tokens(torch.tensor([4, 5], dtype=torch.int32)).requires_grad


@torch.no_grad()
def test_all_rows_may_leave(build: Factory) -> None:
    for compiled in (True, False):
        decoder = PackedDecoder(PackedModel(build("llama"), 2, compiled_kernels=compiled), _prompts(3, 5), 2)
        decoder.read_prompts()
        decoder.keep_rows(torch.tensor([], dtype=torch.int64))
        assert decoder.read_tokens(torch.tensor([], dtype=torch.int64)).shape == (0, 128)


@torch.no_grad()
def test_more_tokens_than_reserved_and_rows_named_twice_are_refused(build: Factory) -> None:
    for compiled in (True, False):
        decoder = PackedDecoder(PackedModel(build("llama"), 2, compiled_kernels=compiled), _prompts(3, 5), 1)
        decoder.read_prompts()
        with pytest.raises(ValueError, match=r"a row can be kept once, found \[0, 0\]"):
            decoder.keep_rows(torch.tensor([0, 0]))
        decoder.read_tokens(torch.tensor([4, 5]))
        with pytest.raises(ValueError, match="2 tokens at column 6 do not fit 2 rows of 6 columns"):
            decoder.read_tokens(torch.tensor([4, 5]))


def test_a_weight_with_gaps_is_packed_as_what_it_shows() -> None:
    linear = nn.Linear(6, 10)
    weight = linear.weight.detach()
    linear.weight = nn.Parameter(weight.t().contiguous().t())
    x: Tensor = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    found = PackedLinear(linear, num_rows=4)(x)
    torch.testing.assert_close(found, x @ weight.t() + linear.bias.detach(), rtol=0, atol=8 * 8 * 2.0**-24)

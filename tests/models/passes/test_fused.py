"""Tests of rlhf.models.passes.fused: models that compute by kernels say what they said before, and learn the same."""

import copy
import gc
import io
import types
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import MistralConfig, MistralForCausalLM, Phi3Config, Phi3ForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaAttention

from rlhf.kernels import passes
from rlhf.models.passes import fused
from rlhf.models.passes.anatomy import blocks, hidden_states
from rlhf.models.passes.attention import use_short_row_attention
from rlhf.models.passes.compiled import is_compiled
from rlhf.models.passes.fused import computes_by_kernels, leave_kernels, speed_up, use_kernels
from rlhf.models.passes.packing import is_packable as is_packable_trunk
from rlhf.sampling.packed import is_packable
from rlhf.stage.frame import Frame

FAMILIES = ("llama", "qwen2", "qwen3", "mistral")
LENGTHS = torch.tensor([3, 11, 1, 7])
pytestmark = pytest.mark.usefixtures("compiler")


def _model(tiny_model: Any, family: str) -> PreTrainedModel:
    if family != "mistral":
        return tiny_model(family)
    like = tiny_model("llama").config
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")
    fields = {name: getattr(like, name) for name in (*names, "num_key_value_heads", "initializer_range")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MistralForCausalLM(MistralConfig(**fields, sliding_window=None)).eval()


def _ids() -> Tensor:
    return torch.randint(3, 128, (4, 11), generator=torch.Generator().manual_seed(0))


def _replaced(model: nn.Module) -> list[str]:
    return sorted({type(module).__name__ for module in model.modules() if hasattr(module, "plain")})


def _gradients(model: PreTrainedModel, lengths: Tensor | None) -> list[Tensor]:
    """The hidden states of real tokens, and all gradients of a weighted sum of them."""
    hidden = hidden_states(model, _ids(), lengths)
    is_real = torch.arange(11) < (torch.full((4,), 11) if lengths is None else lengths)[:, None]
    weight = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    (hidden * weight)[is_real].sum().backward()
    return [hidden[is_real].detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["rows", "pack"])
@pytest.mark.parametrize("family", FAMILIES)
def test_states_and_gradients_are_those_of_transformers(
    tiny_model: Any, roundings: ModuleType, family: str, lengths: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward and back are each as long a way as `of_a_pass` counts, and gradients also sum over 44 tokens."""
    model = _model(tiny_model, family)
    use_short_row_attention(model)
    expected = _gradients(model, lengths)
    use_kernels(model)
    assert [name[-3:] for name in _replaced(model)] == ["ion", "MLP", "orm"]
    calls: list[str] = []
    for name in ("causal_attention", "rms_norm", "silu_mul"):
        kernel = getattr(passes, name)
        monkeypatch.setattr(fused, name, lambda *a, f=kernel, n=name: calls.append(n) or f(*a))
    found = _gradients(model, lengths)
    norms = 9 if family == "qwen3" else 5
    assert [calls.count(name) for name in ("causal_attention", "rms_norm", "silu_mul")] == [2, norms, 2]
    num = 2 * roundings.of_a_pass(model.config, 11) + 44
    for ours, theirs in zip(found, expected, strict=True):
        atol = roundings.apart(float(theirs.abs().max()), num)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@pytest.mark.parametrize("family", ["gpt2", "gemma", "gemma2", "gemma3"])
def test_other_formulas_stay_as_they_are(tiny_model: Any, family: str, caplog: pytest.LogCaptureFixture) -> None:
    """Gemma's norms have other names for their numbers, its gates another function; GPT-2 has neither."""
    model, plain = tiny_model(family), tiny_model(family)
    speed_up(model)
    use_short_row_attention(plain)
    assert torch.equal(hidden_states(model, _ids(), LENGTHS), hidden_states(plain, _ids(), LENGTHS))
    assert _replaced(model) == [] and not [each for each in caplog.records if each.name.startswith("rlhf")]


def test_a_model_that_computes_something_else_under_a_known_name_is_left_alone(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("llama")
    kind = type(model.model.norm)
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, x: 1.01 * forward(self, x))
    speed_up(model)
    assert _replaced(model) == []
    assert caplog.messages == [
        "LlamaForCausalLM: blocks compute as transformers has them: our kernels say something else"
    ]


def test_a_copy_computes_with_its_own_weights(tiny_model: Any) -> None:
    model = tiny_model("llama")
    speed_up(model)
    copied = copy.deepcopy(model)
    before = hidden_states(model, _ids())
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if "norm" in name or "mlp" in name or "self_attn" in name:
                parameter.zero_()
    assert _replaced(copied) == _replaced(model) and torch.equal(hidden_states(model, _ids()), before)
    assert not bool(hidden_states(copied, _ids()).any())


def test_gradients_flow_whether_kept_or_not_and_the_states_are_the_same_bits(tiny_model: Any) -> None:
    model = tiny_model("llama")
    speed_up(model)
    with torch.no_grad():
        without = hidden_states(model, _ids(), LENGTHS)
    assert torch.equal(hidden_states(model, _ids(), LENGTHS), without)


@pytest.mark.parametrize("why", ["mask", "cache", "sdpa", "long", "other type"])
def test_what_kernels_do_not_compute_goes_the_way_of_transformers(
    tiny_model: Any, why: str, monkeypatch: pytest.MonkeyPatch, roundings: ModuleType
) -> None:
    model, plain = tiny_model("llama"), tiny_model("llama")
    speed_up(model)
    calls: list[int] = []
    monkeypatch.setattr(fused, "causal_attention", lambda *a: calls.append(1) or passes.causal_attention(*a))
    options: dict[str, Any] = {"use_cache": False}
    if why == "mask":
        options["attention_mask"] = torch.arange(11) >= torch.tensor([0, 2, 5, 0])[:, None]
    if why == "cache":
        options["use_cache"] = True
    if why == "sdpa":
        model.set_attn_implementation("sdpa")
    if why == "long":
        monkeypatch.setattr(fused, "LONGEST", 10)
    if why == "other type":
        model, plain = model.double(), plain.double()
    with torch.no_grad():
        found = model(input_ids=_ids(), **options).logits
        expected = plain(input_ids=_ids(), **options).logits
    seen = options.get("attention_mask", torch.ones(4, 11, dtype=torch.bool))
    atol = roundings.apart(float(expected.abs().max()), roundings.of_a_pass(model.config, 11))
    torch.testing.assert_close(found[seen], expected[seen], rtol=0, atol=atol)
    assert calls == []


def test_the_sampler_still_knows_the_model(tiny_model: Any) -> None:
    model = tiny_model("llama")
    speed_up(model)
    assert _replaced(model) != [] and is_packable(model)
    model.model.norm.forward = types.MethodType(lambda self, x: x, model.model.norm)
    assert not is_packable(model)


def test_a_part_with_a_forward_of_its_own_keeps_it(tiny_model: Any) -> None:
    model = tiny_model("llama")
    mine = types.MethodType(lambda self, x: type(self).forward(self, x), blocks(model)[0].mlp)
    blocks(model)[0].mlp.forward = mine
    use_kernels(model)
    assert vars(blocks(model)[0].mlp)["forward"] is mine and not hasattr(blocks(model)[0].mlp, "plain")
    assert hasattr(blocks(model)[1].mlp, "plain")
    leave_kernels(model)
    assert _replaced(model) == []


def test_what_is_stored_or_replicated_is_of_transformers_own_classes(tiny_model: Any) -> None:
    model = tiny_model("llama")
    speed_up(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    stored = torch.load(file, weights_only=False)
    parts = [blocks(stored)[0].self_attn, copy.copy(blocks(model)[0].self_attn)]
    assert _replaced(stored) == [] and [type(each) for each in parts] == [LlamaAttention] * 2
    plain = tiny_model("llama")
    use_short_row_attention(plain)
    assert torch.equal(hidden_states(stored, _ids()), hidden_states(plain, _ids()))
    replica = model.model.norm._replicate_for_data_parallel()  # what torch.nn.DataParallel calls
    replica.weight = torch.zeros(32)
    assert not bool(replica(torch.ones(2, 32)).any()) and bool(model.model.norm(torch.ones(2, 32)).all())


def test_a_model_that_nobody_holds_is_gone_at_once(tiny_model: Any) -> None:
    """Its parts do not hold themselves: a large model must not wait for the garbage collector."""
    model = tiny_model("llama")
    speed_up(model)
    parts = [each for each in model.modules() if hasattr(each, "plain")]
    assert parts and not any(part in gc.get_referents(vars(part)) for part in parts)


def test_a_pass_that_casts_by_itself_goes_the_way_of_transformers(tiny_model: Any) -> None:
    model, plain = tiny_model("llama"), tiny_model("llama")
    speed_up(model)
    use_short_row_attention(plain)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(hidden_states(model, _ids()), hidden_states(plain, _ids()))


def test_another_attention_than_the_causal_one_goes_the_way_of_transformers(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plain = tiny_model("llama"), tiny_model("llama")
    speed_up(model)
    use_short_row_attention(plain)
    monkeypatch.setattr(fused, "causal_attention", None)
    states, positions = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0)), torch.arange(5)[None]
    rotation = plain.model.rotary_emb(states, positions)
    found, expected = (blocks(each)[0].self_attn(states, rotation, is_causal=False)[0] for each in (model, plain))
    assert torch.equal(found, expected)
    with pytest.raises(ValueError, match="`sdpa` attention does not support `softcap`"):
        blocks(model)[0].self_attn(states, rotation, softcap=1.0)


def test_an_attention_that_looks_both_ways_goes_the_way_of_transformers(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    speed_up(model)
    for block in blocks(model):
        block.self_attn.is_causal = False
    monkeypatch.setattr(fused, "causal_attention", None)
    assert hidden_states(model, _ids()).isfinite().all()


def test_dropout_of_a_model_in_training_is_no_reason_to_leave_kernels(
    tiny_model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The comparison makes its passes without dropout, and every part is in its own mode afterwards."""
    model = tiny_model("llama").train()
    for block in blocks(model):
        block.self_attn.attention_dropout = 0.5
    blocks(model)[1].eval()
    speed_up(model)
    assert [name[5:] for name in _replaced(model)] == ["Attention", "MLP", "RMSNorm"]
    assert is_packable_trunk(model) and not caplog.messages
    assert model.training and blocks(model)[0].mlp.training and not blocks(model)[1].mlp.training


def test_a_kernel_that_fails_is_left(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> Tensor:
        raise ValueError("kernels take contiguous tensors")

    monkeypatch.setattr(fused, "silu_mul", fails)
    model = tiny_model("llama")
    speed_up(model)
    assert _replaced(model) == [] and "our kernels say something else" in caplog.text


def test_names_that_are_not_listed_are_no_names_of_ours(tiny_model: Any) -> None:
    """Phi 3 has Llama's norm under another name; a gate that was called like one of ours may clamp its inputs."""
    with torch.random.fork_rng(devices=[]):
        model = Phi3ForCausalLM(
            Phi3Config(
                vocab_size=64,
                hidden_size=32,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=1,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
            )
        )
    speed_up(model)
    assert _replaced(model) == []


def test_adapters_in_a_gate_do_not_change_what_else_computes(tiny_model: Any) -> None:
    """A new adapter adds 0: the policy says bit for bit what a model without it says."""
    model, plain = tiny_model("llama"), tiny_model("llama")
    speed_up(plain)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["gate_proj", "up_proj", "down_proj", "q_proj"]))
    speed_up(adapted.base_model.model)
    assert _replaced(adapted) == _replaced(plain)
    with torch.no_grad():
        assert torch.equal(hidden_states(adapted.base_model.model, _ids()), hidden_states(plain, _ids()))


def test_without_a_compiler_models_stay_as_they_are(tiny_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf.kernels.library.library", lambda: None)
    model = tiny_model("llama")
    speed_up(model)
    assert _replaced(model) == []


def _frame(choice: str, monkeypatch: pytest.MonkeyPatch, device: str = "cpu") -> Any:
    """What `compile_for` reads of a stage that may compile."""
    monkeypatch.setattr("rlhf.stage.frame.compiles", lambda *_: True)
    processes = SimpleNamespace(sharding=None, num=1, say=lambda _: None)
    return SimpleNamespace(config=SimpleNamespace(compile=choice), processes=processes, device=torch.device(device))


@pytest.mark.parametrize(("choice", "fast", "compiled"), [("auto", 2, 0), ("auto", 1, 2), ("on", 2, 2)])
def test_auto_compiles_no_blocks_that_compute_by_kernels(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch, choice: str, fast: int, compiled: int
) -> None:
    """All or none: policy and reference compute alike. What torch compiles leaves the kernels."""
    models = [tiny_model("llama"), tiny_model("llama")]
    for model in models[:fast]:
        speed_up(model)
    Frame.compile_for(_frame(choice, monkeypatch), 10**9, *models)
    assert sum(is_compiled(model) for model in models) == compiled
    assert sum(computes_by_kernels(model) for model in models) == (0 if compiled else 2)


def test_on_a_gpu_auto_compiles_what_computes_by_kernels_on_a_cpu_alone(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    speed_up(model)
    Frame.compile_for(_frame("auto", monkeypatch, "cuda"), 10**9, model)
    assert is_compiled(model)

"""Tests of rlhf.sampling.packed.is_packable: which models are left to the plain decoder."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import PreTrainedModel

from rlhf.batches import PromptBatch
from rlhf.sampling.decoder import Decoder
from rlhf.sampling.packed import is_packable
from rlhf.sampling.sampler import make_decoder

Factory = Callable[..., PreTrainedModel]
pytestmark = pytest.mark.usefixtures("packs_bfloat16")


def _hook(model: Any) -> None:
    model.model.layers[0].mlp.register_forward_hook(lambda module, args, output: output)


def _pre_hook(model: Any) -> None:
    model.register_forward_pre_hook(lambda module, args: None)


def _own_forward(model: Any) -> None:
    layer = model.model.layers[1].self_attn
    layer.forward = layer.forward


def _float32_norm(model: Any) -> None:
    model.bfloat16()
    model.model.layers[0].input_layernorm.float()


def _parametrized(model: Any) -> None:
    nn.utils.parametrize.register_parametrization(model.model.layers[0].input_layernorm, "weight", nn.Identity())


def _lora(target: str) -> Callable[[Any], Any]:
    return lambda model: inject_adapter_in_model(LoraConfig(r=2, target_modules=[target]), model)


class _Linear(nn.Linear):
    pass


def _other_head(model: Any) -> None:
    model.lm_head.__class__ = _Linear


def _no_norm(model: Any) -> None:
    model.model.norm = nn.Identity()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "lora on a linear map": _lora("down_proj"),
    "lora on the embedding": _lora("embed_tokens"),
    "a hook": _hook,
    "a pre-hook": _pre_hook,
    "a forward of its own": _own_forward,
    "float16": lambda model: model.half(),
    "float64": lambda model: model.double(),
    "float32 norms in bfloat16": _float32_norm,
    "a parametrized norm": _parametrized,
    "another head": _other_head,
    "no norm": _no_norm,
    "another device": lambda model: model.to("meta"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_left_to_the_plain_decoder(build: Factory, change: str) -> None:
    model = build("llama")
    assert is_packable(model)
    CHANGES[change](model)
    assert not is_packable(model)


def _rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, "factor": 2.0} | more}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt2", {}),
        ("gemma", {}),
        ("gemma2", {}),
        ("gemma3", {}),
        ("qwen3", {}),
        ("mistral", {"sliding_window": 8}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"hidden_act": "relu"}),
        ("llama", _rope("dynamic")),
        ("llama", _rope("yarn", original_max_position_embeddings=64)),
    ],
)
def test_another_architecture_is_left_to_the_plain_decoder(
    build: Factory, family: str, changes: dict[str, Any]
) -> None:
    model = build(family, **changes)
    ids = torch.tensor([[4, 5, 6, 0], [7, 8, 9, 10]])
    prompts = PromptBatch(prompt_ids=ids, prompt_mask=ids != 0)
    assert not is_packable(model)
    assert isinstance(make_decoder(model, prompts, 2), Decoder)


def test_classes_of_the_same_names_from_elsewhere_and_functions_are_left_to_the_plain_decoder(build: Factory) -> None:
    model = build("llama")
    for module in model.modules():
        kind = type(module)
        if kind.__module__ == "transformers.models.llama.modeling_llama":
            module.__class__ = type(kind.__name__, (kind,), {"__module__": "downloaded.modeling_llama"})
    assert type(model).__name__ == "LlamaForCausalLM" and len({type(each) for each in model.modules()}) > 5
    assert not is_packable(model)
    assert not is_packable(lambda **kwargs: None)


def test_a_cpu_that_packs_nothing_or_no_bfloat16_uses_the_plain_decoder(
    build: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ops:
        @staticmethod
        def _is_mkldnn_bf16_supported() -> bool:
            return False

    model, low = build("llama"), build("llama").bfloat16()
    assert is_packable(low)
    with monkeypatch.context() as patch:
        patch.setattr(torch.ops, "mkldnn", Ops)
        assert is_packable(model) and not is_packable(low)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not is_packable(model)

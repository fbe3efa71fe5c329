"""Norms, gates and attention of blocks built like Llama's, by compiled kernels on a CPU."""

import logging
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from rlhf.functional.attention import SHORT_ROWS
from rlhf.kernels.library import has_kernels
from rlhf.kernels.passes import LONGEST, causal_attention, rms_norm, silu_mul
from rlhf.models.passes.attention import use_short_row_attention
from rlhf.models.passes.packing import trunk_states

ATTENTION = ("LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention")
"""Classes of transformers that turn queries and keys by rotary positions and attend to grouped keys."""
log = logging.getLogger(__name__)


def speed_up(model: PreTrainedModel) -> None:
    """Choose how passes of a model compute on this device, in place; what they compute stays the same.

    Short rows attend by plain products, rows of unequal length are packed, and on a CPU kernels take the steps between
    two products, each where the model's architecture allows it.
    """
    use_short_row_attention(model)
    use_kernels(model)


@torch.no_grad()
def use_kernels(model: PreTrainedModel) -> None:
    """Let parts of a model that are known here compute by kernels; all stay as they were if their output changes."""
    replaced = [(module, forward) for module in model.modules() if (forward := _kernel_of(module)) is not None]
    if not replaced or not all(has_kernels(weight) for weight in model.parameters() if weight.is_floating_point()):
        return
    ids = torch.arange(15, device=model.device).view(3, 5) % model.config.get_text_config().vocab_size
    lengths = torch.tensor([2, 5, 3])
    expected = trunk_states(model.base_model, ids, lengths)
    for module, forward in replaced:
        # A bound method: a copy of the module gets one that is bound to the copy.
        module.forward = types.MethodType(forward, module)
    found = trunk_states(model.base_model, ids, lengths)
    is_real = torch.arange(5) < lengths[:, None]
    apart = (found - expected)[is_real].norm() / expected[is_real].norm()
    # The same operations, perhaps in another order; another formula changes far more.
    if not apart <= torch.finfo(found.dtype).eps ** 0.5:
        log.warning("%s: blocks compute as transformers has them: our kernels say something else", type(model).__name__)
        leave_kernels(model)


def leave_kernels(model: nn.Module) -> None:
    """Let every part of a model compute as transformers has it again."""
    for module in _replaced(model):
        del module.forward


def computes_by_kernels(model: nn.Module) -> bool:
    """Whether parts of a model compute by kernels."""
    return any(True for _ in _replaced(model))


def _replaced(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if getattr(vars(module).get("forward"), "__func__", None) in (_norm, _gated, _attend):
            yield module


def _kernel_of(module: nn.Module) -> Any:
    """Return what computes a module by kernels, None for a module that is not known here."""
    kind = type(module)
    if not kind.__module__.startswith("transformers.models.") or "forward" in vars(module):
        return None
    if kind.__name__.endswith("RMSNorm") and {"weight", "variance_epsilon"} <= {*vars(module), *module._parameters}:
        return _norm
    has_gate = all(isinstance(getattr(module, f"{name}_proj", None), nn.Linear) for name in ("gate", "up", "down"))
    if kind.__name__.endswith("MLP") and has_gate and isinstance(getattr(module, "act_fn", None), type(ACT2FN["silu"])):
        return _gated
    return _attend if kind.__name__ in ATTENTION else None


def _norm(module: Any, hidden_states: Tensor) -> Tensor:
    if not _fits(hidden_states, module.weight):
        return type(module).forward(module, hidden_states)  # type: ignore[no-any-return]
    return rms_norm(hidden_states, module.weight, module.variance_epsilon)


def _gated(module: Any, x: Tensor) -> Tensor:
    if not _fits(x):
        return type(module).forward(module, x)  # type: ignore[no-any-return]
    return module.down_proj(silu_mul(module.gate_proj(x), module.up_proj(x)))  # type: ignore[no-any-return]


def _attend(
    module: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend within rows that nothing masks; decoding, windows and long rows go the way of transformers."""
    is_plain = attention_mask is None and past_key_values is None and position_embeddings is not None
    pack = options.get("packing")
    longest = hidden_states.shape[1] if pack is None else pack[0].shape[1]
    is_chosen = module.config._attn_implementation == SHORT_ROWS and not (module.training and module.attention_dropout)
    if not (is_plain and is_chosen and longest <= LONGEST and _fits(hidden_states, *(position_embeddings or ()))):
        return type(module).forward(  # type: ignore[no-any-return]
            module,
            hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **options,
        )
    assert position_embeddings is not None
    tokens = hidden_states.flatten(0, 1)
    query, key, value = (
        each(tokens).unflatten(-1, (-1, module.head_dim)) for each in (module.q_proj, module.k_proj, module.v_proj)
    )
    if hasattr(module, "q_norm"):
        query, key = module.q_norm(query), module.k_norm(key)
    starts = torch.arange(0, len(tokens) + 1, longest) if pack is None else pack[2]
    rotation = tuple(each.flatten(0, 1) for each in position_embeddings)
    mixed = causal_attention(query, key, value, rotation, (starts, longest), module.scaling)  # type: ignore[arg-type]
    return module.o_proj(mixed.flatten(1)).view(hidden_states.shape), None


# For the sampler, which computes blocks in its own way.
_norm.same_output = True  # type: ignore[attr-defined]
_gated.same_output = True  # type: ignore[attr-defined]
_attend.same_output = True  # type: ignore[attr-defined]


def _fits(*tensors: Tensor) -> bool:
    """Whether compiled code can read these tensors: on the CPU, of one type, and not while torch compiles."""
    if torch.compiler.is_compiling() or not has_kernels(tensors[0]):
        return False
    return all(each.dtype == tensors[0].dtype and each.device.type == "cpu" for each in tensors)

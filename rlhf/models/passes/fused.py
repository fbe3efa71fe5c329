"""Norms, gates and attention of blocks built like Llama's, by compiled kernels on a CPU."""

import copy
import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from rlhf.functional.attention import SHORT_ROWS
from rlhf.kernels.library import has_kernels
from rlhf.kernels.passes import LONGEST, causal_attention, rms_norm, silu_mul
from rlhf.models.passes.attention import EXTRAS, use_short_row_attention
from rlhf.models.passes.evaluating import evaluating
from rlhf.models.passes.packing import trunk_states

FAMILIES = ("Llama", "Mistral", "Qwen2", "Qwen3")
"""How names of transformers begin for blocks of RMS norms, rotary positions, grouped keys and gated SiLU."""
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
    parts = [(module, kind) for module in model.modules() if (kind := _kernel_class(module)) is not None]
    if not parts or not all(has_kernels(weight) for weight in model.parameters() if weight.is_floating_point()):
        return
    ids = torch.arange(15, device=model.device).view(3, 5) % model.config.get_text_config().vocab_size
    lengths = torch.tensor([2, 5, 3])
    with evaluating(model):
        expected = trunk_states(model.base_model, ids, lengths)
        for module, kind in parts:
            module.__class__ = kind
        try:
            found = trunk_states(model.base_model, ids, lengths)
        except (TypeError, ValueError, RuntimeError, IndexError):
            found = torch.full_like(expected, torch.nan)
    is_real = torch.arange(5) < lengths[:, None]
    apart = (found - expected)[is_real].norm() / expected[is_real].norm()
    # The same operations, perhaps in another order; another formula changes far more.
    if not apart <= torch.finfo(found.dtype).eps ** 0.5:
        log.warning("%s: blocks compute as transformers has them: our kernels say something else", type(model).__name__)
        leave_kernels(model)


def leave_kernels(model: nn.Module) -> None:
    """Let every part of a model compute as transformers has it again."""
    for module in _parts(model):
        module.__class__ = module.plain  # type: ignore[assignment]


def computes_by_kernels(model: nn.Module) -> bool:
    """Whether parts of a model compute by kernels."""
    return any(True for _ in _parts(model))


def _parts(model: nn.Module) -> Iterator["_Part"]:
    return (module for module in model.modules() if isinstance(module, _Part))


class _Part(nn.Module):
    """Stands before a class of transformers, and takes what kernels can compute; the rest goes to that class."""

    plain: ClassVar[type[nn.Module]]
    """The class of transformers."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Part":
        copied: _Part = memo.setdefault(id(self), type(self).__new__(type(self)))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Leave the process as the class of transformers, which is there wherever the model is read."""
        return object.__new__, (self.plain,), self.__dict__


class _Norm(_Part):
    weight: Tensor
    variance_epsilon: float

    def forward(self, hidden_states: Tensor) -> Tensor:
        if not _fits(hidden_states, self.weight):
            return super().forward(hidden_states)  # type: ignore[no-any-return]
        return rms_norm(hidden_states, self.weight, self.variance_epsilon)


class _Gated(_Part):
    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        if not _fits(x):
            return super().forward(x)  # type: ignore[no-any-return]
        return self.down_proj(silu_mul(self.gate_proj(x), self.up_proj(x)))  # type: ignore[no-any-return]


class _Attention(_Part):
    config: Any
    head_dim: int
    scaling: float
    is_causal: bool
    attention_dropout: float

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend within rows that nothing masks; decoding, windows and long rows go the way of transformers."""
        pack = options.get("packing")
        longest = hidden_states.shape[1] if pack is None else pack[0].shape[1]
        is_plain = attention_mask is None and past_key_values is None and position_embeddings is not None
        if not (is_plain and self._attends_causally(options) and longest <= LONGEST) or not _fits(
            hidden_states, *(position_embeddings or ())
        ):
            return super().forward(  # type: ignore[no-any-return]
                hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                **options,
            )
        assert position_embeddings is not None
        tokens = hidden_states.flatten(0, 1)
        query, key, value = (self._heads(name, tokens) for name in ("q", "k", "v"))
        starts = torch.arange(0, len(tokens) + 1, longest) if pack is None else pack[2]
        cos, sin = (each.flatten(0, 1) for each in position_embeddings)
        mixed = causal_attention(query, key, value, (cos, sin), (starts, longest), self.scaling)
        return self.o_proj(mixed.flatten(1)).view(hidden_states.shape), None  # type: ignore[operator]

    def _attends_causally(self, options: dict[str, Any]) -> bool:
        """Whether this is the attention to earlier tokens of a row, without dropout and what else there is."""
        chosen = options.get("is_causal")
        is_causal = self.is_causal if chosen is None else chosen
        has_extras = any(options.get(name) is not None for name in EXTRAS) or (self.training and self.attention_dropout)
        return bool(is_causal and self.config._attn_implementation == SHORT_ROWS and not has_extras)

    def _heads(self, name: str, tokens: Tensor) -> Tensor:
        """Return queries, keys or values [N, heads, D], with the norm that some families give them."""
        heads: Tensor = getattr(self, f"{name}_proj")(tokens).unflatten(-1, (-1, self.head_dim))
        norm = getattr(self, f"{name}_norm", None)
        return heads if norm is None else norm(heads)


KINDS: dict[str, type[_Part]] = {
    family + part: kind
    for family in FAMILIES
    for part, kind in (("RMSNorm", _Norm), ("MLP", _Gated), ("Attention", _Attention))
}
_MADE: dict[type[nn.Module], type[_Part]] = {}


def _kernel_class(module: nn.Module) -> type[_Part] | None:
    """Return the class that computes a module by kernels, None for one that is not known here."""
    kind = type(module)
    is_known = kind.__name__ in KINDS and kind.__module__.startswith("transformers.models.")
    if not is_known or isinstance(module, _Part) or "forward" in vars(module):
        return None
    if KINDS[kind.__name__] is _Gated and not isinstance(module.act_fn, type(ACT2FN["silu"])):
        return None
    if kind not in _MADE:
        # It keeps name and home, by which others know the part.
        names = {"plain": kind, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
        _MADE[kind] = type(kind.__name__, (KINDS[kind.__name__], kind), names)
    return _MADE[kind]


def _fits(*tensors: Tensor) -> bool:
    """Whether compiled code can read these tensors: on the CPU, of one type, and not while torch compiles or casts."""
    if torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu") or not has_kernels(tensors[0]):
        return False
    return all(each.dtype == tensors[0].dtype and each.device.type == "cpu" for each in tensors)

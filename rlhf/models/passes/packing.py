"""Rows of unequal length pass a trunk without padding: its linear maps read real tokens alone, its attention rows.

The tokens of all rows follow each other, [1, N], with positions that restart in each row. The attention puts them back
into rows, so no token sees another row, and no product is larger than rows x longest row x longest row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function
from transformers import PreTrainedModel

from rlhf.errors import ConfigError
from rlhf.functional.attention import SHORT_ROWS
from rlhf.models.passes.evaluating import evaluating

Where = Literal["nowhere", "cpu", "everywhere"]
"""On which devices a model packs rows; that it is faster has been measured on a CPU only."""
Pack = tuple[Tensor, Tensor, Tensor]
"""[B, S] int64, the token at each place of the rows (in padding, the one before it); [N] int64, each token's place
among the B S places; [B + 1] int64, where each row's tokens begin, then N. A plain tuple, which torch can compile."""
LONGEST_ROW: ContextVar[int | None] = ContextVar("tokens of the rows in a trunk that share a mask", default=None)
"""The longest row of a pack, or the width of rows as they are on a GPU; None while transformers makes the mask."""
_WHERE = "_rlhf_packs"


def use_packing(model: PreTrainedModel, where: Where) -> None:
    """Let passes of a model pack rows on these devices."""
    setattr(model.base_model, _WHERE, where)


def is_packable(model: PreTrainedModel) -> bool:
    """Whether a model packs rows on some device."""
    return getattr(model.base_model, _WHERE, "nowhere") != "nowhere"


def choose_packing(model: PreTrainedModel, choice: Literal["auto", "on", "off"], *, is_possible: bool) -> str | None:
    """Let a model pack rows as the config's `packing` says.

    Args:
        model: as `use_short_row_attention` left it.
        choice: `auto` packs on a CPU, `on` on every device.
        is_possible: whether every process found it to be packable.

    Returns:
        Why `auto` does not pack, for the user; None where it does or is not asked to.

    Raises:
        ConfigError: `on`, and it is not possible.
    """
    why = f"{type(model).__name__} computes its attention or its positions in a way that does not allow it"
    if choice == "on" and not is_possible:
        raise ConfigError(f"packing: on, but {why} - set packing: auto")
    wanted: dict[str, Where] = {"auto": "cpu", "on": "everywhere", "off": "nowhere"}
    use_packing(model, wanted[choice] if is_possible else "nowhere")
    return f"rows of unequal length are padded, not packed: {why}" if choice == "auto" and not is_possible else None


def packs(model: PreTrainedModel) -> bool:
    """Whether passes of a model pack rows of unequal length."""
    return _packs_on(model.base_model, model.device)


def trunk_states(module: nn.Module, inputs: Tensor, lengths: Tensor | None) -> Tensor:
    """Return [B, S, H], the last hidden states of a trunk or of a part of it; in padding they mean nothing.

    No mask is needed for rows: causal attention never looks to the right, so padding cannot reach a real token.

    Args:
        module: the trunk.
        inputs: right-padded ids [B, S] int64, or the states [B, S, H] that enter its first block.
        lengths: [B] int64, real tokens of each row; None if unknown: then nothing is packed.
    """
    name = "inputs_embeds" if inputs.is_floating_point() else "input_ids"
    width = inputs.shape[1]
    if lengths is None or not _packs_on(module, inputs.device) or bool((lengths == width).all()):
        return _states_of_rows(module, name, inputs)
    pack = _pack(lengths, width)
    positions = (pack[1] % width)[None]
    # With a mask of its own transformers does not look for rows in the positions; `row_mask` takes no notice of it.
    options = {"position_ids": positions, "attention_mask": torch.ones_like(positions, dtype=torch.bool)}
    packed = inputs.flatten(0, 1).index_select(0, pack[1])[None]
    with _rows_of(width):
        hidden = module(**{name: packed}, use_cache=False, packing=pack, **options).last_hidden_state
    return as_rows(hidden, pack)


def _states_of_rows(module: nn.Module, name: str, inputs: Tensor) -> Tensor:
    """Return the last hidden states of rows as they are, padding included.

    Without a mask transformers looks for packed rows in the positions, and the host waits until a GPU has computed all
    that came before. A mask keeps it from looking; `row_mask` takes no notice of what is in it.
    """
    if inputs.device.type != "cuda" or module.config._attn_implementation != SHORT_ROWS:  # type: ignore[union-attr]
        return module(**{name: inputs}, use_cache=False).last_hidden_state  # type: ignore[no-any-return]
    mask = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
    with _rows_of(inputs.shape[1]):
        return module(**{name: inputs}, use_cache=False, attention_mask=mask).last_hidden_state  # type: ignore[no-any-return]


@contextmanager
def _rows_of(width: int) -> Iterator[None]:
    """Tell `row_mask` that all rows share the mask of one of `width` tokens."""
    outside = LONGEST_ROW.set(width)
    try:
        yield
    finally:
        LONGEST_ROW.reset(outside)


def as_rows(packed: Tensor, pack: Pack) -> Tensor:
    """Return [B, S, ...], the tokens [1, N, ...] of a pack in their rows; padding repeats a token."""
    tokens, places, _ = pack
    rows: Tensor = _Placed.apply(packed[0].flatten(1), tokens.flatten(), places)  # type: ignore[no-untyped-call]
    return rows.view(*tokens.shape, *packed.shape[2:])


def as_tokens(rows: Tensor, pack: Pack) -> Tensor:
    """Return [1, N, ...], the real tokens of rows [B, S, ...]."""
    packed: Tensor = _Taken.apply(rows.flatten(0, 1).flatten(1), pack[1])  # type: ignore[no-untyped-call]
    return packed.view(1, -1, *rows.shape[2:])


@torch.no_grad()
def allows_packing(model: PreTrainedModel) -> bool:
    """Whether a model says of packed rows what it says of each alone, and no row of a pack depends on another.

    An architecture whose attention does not put tokens back into rows, or whose other parts mix neighbouring tokens,
    is found out here. Rows of a few tokens suffice: a longer one passes the same parts.
    """
    module, lengths = model.base_model, torch.tensor([2, 5, 3], device=model.device)
    before: Where = getattr(module, _WHERE, "nowhere")
    ids = torch.arange(15, device=model.device).view(3, 5) % model.config.get_text_config().vocab_size
    others = ids.clone()
    others[::2] = ids[::2].flip(-1)  # the first and the last row are other ones
    with evaluating(model):
        alone = [trunk_states(module, row[None, :length], None)[0] for row, length in zip(ids, lengths, strict=True)]
        use_packing(model, "everywhere")
        try:
            together, beside_others = (trunk_states(module, each, lengths) for each in (ids, others))
        except (
            TypeError,
            ValueError,
            RuntimeError,
            IndexError,
        ):  # it takes no positions, or no words for its attention
            return False
        finally:
            use_packing(model, before)
    expected = torch.cat(alone)
    found = torch.cat([row[:length] for row, length in zip(together, lengths, strict=True)])
    # The same operations, perhaps in another order; a wrong position or a token of another row changes far more.
    atol = torch.finfo(found.dtype).eps ** 0.5 * float(expected.abs().max())
    return torch.equal(together[1], beside_others[1]) and torch.allclose(found, expected, rtol=0, atol=atol)


def _packs_on(module: nn.Module, device: torch.device) -> bool:
    where: Where = getattr(module, _WHERE, "nowhere")
    return where == "everywhere" or (where == "cpu" and device.type == "cpu")


def _pack(lengths: Tensor, width: int) -> Pack:
    is_real = torch.arange(width, device=lengths.device) < lengths[:, None]
    tokens = is_real.flatten().cumsum(0).view_as(is_real) - 1
    starts = torch.nn.functional.pad(is_real.sum(1).cumsum(0), (1, 0))
    return tokens, is_real.flatten().nonzero().squeeze(-1), starts


class _Placed(Function):
    """Tokens [N, F] to places [B S, F]. The gradient of padding is 0, because nothing real depends on it."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, tokens: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return packed.index_select(0, tokens)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(0, *ctx.saved_tensors), None, None


class _Taken(Function):
    """Places [B S, F] to tokens [N, F]."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.num_places = len(rows)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        return grad.new_zeros(ctx.num_places, grad.shape[1]).index_copy_(0, places, grad), None

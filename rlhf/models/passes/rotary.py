"""Rotary positions whose factors depend on the length of the sequence: one choice for all rows of a run."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

CHANGING = ("dynamic", "longrope")
"""Kinds of rotary positions that transformers computes from the longest position of a batch."""
_CHOSEN = "rlhf_chosen_length"
LEARNT = "rotary_length"
"""Key of a reward model's config.json: it was trained with the factors of sequences of so many tokens."""


def steady_length(model: PreTrainedModel) -> int | None:
    """Return the longest sequence in tokens whose positions depend on nothing else; None where there is no limit.

    Beyond it a row's logprobs would depend on the other rows, and on whether it is read token by token.
    """
    limit = _first_limit(model)
    if limit is None:
        return None
    chosen = [getattr(module, _CHOSEN, limit) for module in _rotary_modules(model)]
    return min(chosen, default=limit)


def why_steady(model: PreTrainedModel) -> str:
    """Return, for a refusal, why a sequence must not be longer than `steady_length`."""
    learnt = learnt_length(model)
    if learnt is not None and learnt == steady_length(model):
        return f"it was trained with the rotary factors ({_kinds(model)}) of at most {learnt} tokens"
    return f"beyond them its rotary factors ({_kinds(model)}) depend on the longest row of a batch"


def choose_factors(model: PreTrainedModel, longest: int) -> str | None:
    """Fix the factors for a run: every row gets those of a sequence of `longest` tokens.

    A model whose factors are the same for all such sequences stays as it is, and so does one that keeps its factors in
    a way that is not known here: its `steady_length` stays what it was.

    Args:
        model: changed in place; copies of it have the same factors.
        longest: tokens of the longest sequence that the run may meet; counted up to the model's positions.

    Returns:
        What was fixed, for the user; None where nothing was.
    """
    positions, limit, modules = _positions(model), steady_length(model), _rotary_modules(model)
    longest = longest if positions is None else min(longest, positions)
    if limit is None or longest <= limit or not modules:
        return None
    for module in modules:
        if not hasattr(module, _CHOSEN):
            module.register_forward_pre_hook(_with_longest, with_kwargs=True)
            module.register_forward_hook(_without_longest)
        setattr(module, _CHOSEN, longest)
    return chosen_factors(model)


def learnt_length(model: PreTrainedModel) -> int | None:
    """Return the length whose factors a reward model was trained with; None where none is known, or all are alike."""
    return None if _first_limit(model) is None else getattr(model.config, LEARNT, None)


def record_factors(model: PreTrainedModel) -> None:
    """Write the length whose factors a model has into its config, which is saved; nothing where all are alike."""
    length = steady_length(model)
    if length is not None:
        setattr(model.config, LEARNT, length)


def recall_factors(model: PreTrainedModel) -> None:
    """Give a saved model the factors that it was trained with, as its config tells.

    Those of any length beyond the first limit serve up to the model's positions. A model that was trained below the
    limit reads nothing beyond it.
    """
    learnt, limit = learnt_length(model), _first_limit(model)
    if learnt is not None and limit is not None and learnt > limit:
        choose_factors(model, _positions(model) or learnt)


def chosen_factors(model: PreTrainedModel) -> str | None:
    """Return, for the user, which factors `choose_factors` fixed; None where it fixed none."""
    chosen = [getattr(module, _CHOSEN) for module in _rotary_modules(model) if hasattr(module, _CHOSEN)]
    if not chosen:
        return None
    limit = _first_limit(model)
    return (
        f"rotary factors ({_kinds(model)}) change beyond {limit} tokens, and a sequence may have {chosen[0]}: every "
        f"row gets those of {chosen[0]} tokens - for those of short rows, allow at most {limit} tokens, prompt and "
        "response together"
    )


def _kinds(model: PreTrainedModel) -> str:
    return ", ".join(sorted({each["rope_type"] for each in _changing(model)}))


def _positions(model: PreTrainedModel) -> int | None:
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return None if found is None else int(found)


def _first_limit(model: PreTrainedModel) -> int | None:
    """Return up to which length the factors are those of a short sequence: the one of pretraining."""
    name = "original_max_position_embeddings"
    general = getattr(model.config.get_text_config(), name, None) or _positions(model)
    limits = [
        _positions(model) if each["rope_type"] == "dynamic" else each.get(name) or general for each in _changing(model)
    ]
    return min((int(limit) for limit in limits if limit is not None), default=None)


def _changing(model: PreTrainedModel) -> list[Mapping[str, Any]]:
    """Return the config's rotary parameters that depend on the length; kinds of layers may have their own."""
    found = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    each_kind = [each for each in (found, *found.values()) if isinstance(each, Mapping)]
    return [each for each in each_kind if each.get("rope_type") in CHANGING]


def _rotary_modules(model: PreTrainedModel) -> list[nn.Module]:
    """Return the modules that compute cosines and sines from the longest position they are asked for."""

    def changes(module: nn.Module) -> bool:
        kind = getattr(module, "rope_type", None)
        return not set(CHANGING).isdisjoint(kind.values() if isinstance(kind, Mapping) else [kind])

    return [module for module in model.modules() if changes(module)]


def _with_longest(
    module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Add the last position of the run's longest sequence to the positions [..., S] that a module is asked for."""
    if "position_ids" in options:
        return args, {**options, "position_ids": _longer(module, options["position_ids"])}
    return (args[0], _longer(module, args[1]), *args[2:]), options


def _longer(module: nn.Module, positions: Tensor) -> Tensor:
    last = positions.new_full((*positions.shape[:-1], 1), getattr(module, _CHOSEN) - 1)
    return torch.cat((positions, last), dim=-1)


def _without_longest(module: nn.Module, args: tuple[Any, ...], output: Tensor | tuple[Tensor, ...]) -> Any:
    """Take the added position away from the cosines and sines [..., S + 1, D], or from the complex numbers of both."""
    return output[..., :-1, :] if isinstance(output, Tensor) else tuple(each[..., :-1, :] for each in output)

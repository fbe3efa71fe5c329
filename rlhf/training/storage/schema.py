"""What a run's checkpoints must hold: names, shapes and types of tensors, and the form of the JSON beside them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, Union

import torch
from torch import Tensor

from rlhf.errors import CheckpointError

SHOWN = 3
"""Names that a refusal lists."""

Form: TypeAlias = Union[type[int], type[float], Mapping[str, "Form"], list["Form"]]  # noqa: UP007 - names itself
"""Of JSON: an integer; a finite number; an object with exactly these keys; a list whose items all have one form."""


@dataclass(frozen=True, slots=True)
class TensorForm:
    """Shape and type of a tensor."""

    shape: tuple[int | None, ...]
    """None where any length fits."""
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorForm":
        """Return the form of a tensor."""
        return cls(tuple(tensor.shape), tensor.dtype)

    def fits(self, tensor: Tensor) -> bool:
        """Whether a tensor has this form."""
        lengths = tuple(tensor.shape)
        return (
            tensor.dtype == self.dtype
            and len(lengths) == len(self.shape)
            and all(want in (None, found) for want, found in zip(self.shape, lengths, strict=True))
        )

    def __str__(self) -> str:
        lengths = ", ".join("any" if length is None else str(length) for length in self.shape)
        return f"[{lengths}] {str(self.dtype).removeprefix('torch.')}"


def bytes_of(forms: Iterable[TensorForm]) -> int:
    """Return the bytes that tensors of these forms take; a length that may be any counts as 0."""
    return sum(form.dtype.itemsize * math.prod(length or 0 for length in form.shape) for form in forms)


@dataclass(frozen=True, slots=True)
class Schema:
    """What a checkpoint of a run must hold, no more and no less."""

    tensors: Mapping[str, Mapping[str, TensorForm]]
    """By group, and by name in it."""
    state: Form
    """Of the JSON."""


def forms_of(tensors: Mapping[str, Tensor]) -> dict[str, TensorForm]:
    """Return the forms of named tensors."""
    return {name: TensorForm.of(tensor) for name, tensor in tensors.items()}


def check_names(where: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse names that are missing, or that nothing reads.

    Raises:
        CheckpointError: says where, and which.
    """
    missing, more = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or more:
        said = [*([f"lacks {_listed(missing)}"] if missing else []), *([f"also holds {_listed(more)}"] if more else [])]
        raise CheckpointError(f"{where}: does not fit this run: {' and '.join(said)}")


def check_tensors(where: str, found: Mapping[str, Tensor], expected: Mapping[str, TensorForm]) -> None:
    """Refuse tensors that are not exactly the expected ones.

    Raises:
        CheckpointError: says where, which, what was found, and what was expected.
    """
    check_names(where, found, expected)
    for name, form in expected.items():
        if not form.fits(found[name]):
            raise CheckpointError(
                f"{where}: does not fit this run: {name} is {TensorForm.of(found[name])}, expected {form}"
            )


def check_form(where: str, found: object, form: Form) -> None:
    """Refuse JSON of another form; `where` names the file, and the keys so far.

    Raises:
        CheckpointError: says where, what was found, and what was expected.
    """
    if isinstance(form, Mapping) and isinstance(found, dict):
        check_names(where, found, form)
        for key, inner in form.items():
            check_form(f"{where}: {key}", found[key], inner)
    elif isinstance(form, list) and isinstance(found, list):
        for place, item in enumerate(found):
            check_form(f"{where}: item {place}", item, form[0])
    elif isinstance(form, type) and _is_number(found, form):
        return
    else:
        raise CheckpointError(f"{where}: does not fit this run: expected {_named(form)}, found {found!r:.80}")


def _is_number(found: object, form: type) -> bool:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return False
    return isinstance(found, int) if form is int else math.isfinite(found)


def _named(form: Form) -> str:
    if isinstance(form, Mapping):
        return "an object"
    if isinstance(form, list):
        return "a list"
    return "an integer" if form is int else "a finite number"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")

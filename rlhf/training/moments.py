"""AdamW's two moments in 8 bits a number, a quarter of their memory (Dettmers et al. 2022, arXiv:2110.02861).

A tensor is cut into blocks of 256 numbers. A block keeps its largest magnitude in float32, and for each number the
nearest of 256 fractions of that. The fractions lie denser near 0, because moments of one block differ by orders of
magnitude. The update itself is computed in float32, from moments that were read back, on a part of a tensor at a time.

It is torch alone, the same on every device; bitsandbytes has a kernel of its own for CUDA, which is not used.
"""

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.training.storage.schema import TensorForm

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""AdamW's state of a parameter, under torch's names."""
LARGEST = "_largest"
"""How the name ends under which the largest magnitudes of a moment's blocks are kept."""
BLOCK = 256
SLICE = 2**22
"""Numbers that are made exact at once, a multiple of a block: 16 MB in float32."""
SMALLEST = 4096
"""Numbers of a tensor from which on its moments are worth cutting into blocks."""
DECADES = 7


def in_8_bits(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """Return the names of those parameters whose moments may be kept in 8 bits.

    Embeddings keep theirs in float32, as the paper advises: a token that is rare has gradients unlike its neighbours'.
    """
    tables = {id(each.weight) for each in module.modules() if isinstance(each, nn.Embedding)}
    return [
        name
        for name, parameter in parameters.items()
        if parameter.ndim > 1 and parameter.numel() >= SMALLEST and id(parameter) not in tables
    ]


def forms_of_state(form: TensorForm, *, narrow: bool) -> dict[str, TensorForm]:
    """Return the shapes and types of the state of a parameter, by its name there."""
    forms = {"step": TensorForm((), torch.float32)}
    for moment in MOMENTS[1:]:
        forms[moment] = TensorForm(form.shape, torch.uint8 if narrow else torch.float32)
        if narrow:
            forms[moment + LARGEST] = TensorForm((_num_blocks(form.shape),), torch.float32)
    return forms


def blank_state(form: TensorForm, *, narrow: bool) -> dict[str, Tensor]:
    """Return the state of a parameter before its first step, on the CPU: every moment is 0."""
    found = {}
    for name, each in forms_of_state(form, narrow=narrow).items():
        zero = float(_fractions(signed=name == "exp_avg").eq(0).nonzero()) if each.dtype == torch.uint8 else 0
        found[name] = torch.full([length or 0 for length in each.shape], zero, dtype=each.dtype)
    return found


class AdamW(torch.optim.AdamW):
    """torch's AdamW, with the moments of some parameters in 8 bits."""

    def __init__(self, groups: list[dict[str, Any]], narrow: Collection[nn.Parameter], *, fused: bool) -> None:
        """Take parameter groups, and those of their parameters whose moments are kept in 8 bits."""
        super().__init__(groups, fused=fused)
        self._narrow = {id(parameter) for parameter in narrow}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient; the gradients of those in 8 bits are forgotten."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if id(parameter) in self._narrow and parameter.grad is not None:
                    self._step(parameter, parameter.grad, group)
                    parameter.grad = None
        super().step()

    def _step(self, parameter: nn.Parameter, grad: Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            blank = blank_state(TensorForm.of(parameter), narrow=True)
            state.update({name: each.to(parameter.device) for name, each in blank.items()})
        state["step"] += 1
        flat = {name: state[name].view(-1) for name in state if name != "step"}
        weights, grads = parameter.view(-1), grad.reshape(-1)
        for start in range(0, len(weights), SLICE):
            here, blocks = slice(start, start + SLICE), slice(start // BLOCK, (start + SLICE) // BLOCK)
            part = {name: each[blocks if name.endswith(LARGEST) else here] for name, each in flat.items()}
            _update(weights[here], grads[here], part, int(state["step"]), group)


def _update(weights: Tensor, grads: Tensor, state: Mapping[str, Tensor], step: int, group: Mapping[str, Any]) -> None:
    """Make one step of AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) on some numbers, in place."""
    rate, (beta1, beta2) = float(group["lr"]), group["betas"]
    mean, square = read_back(state, "exp_avg"), read_back(state, "exp_avg_sq")
    mean.lerp_(grads, 1 - beta1)
    square.mul_(beta2).addcmul_(grads, grads, value=1 - beta2)
    weights.mul_(1 - rate * group["weight_decay"])
    root = square.sqrt().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
    weights.addcdiv_(mean, root, value=-rate / (1 - beta1**step))
    for moment, values in (("exp_avg", mean), ("exp_avg_sq", square)):
        codes, largest = rounded(values, signed=moment == "exp_avg")
        state[moment].copy_(codes)
        state[moment + LARGEST].copy_(largest)


def rounded(values: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Return the codes [N] uint8 of float32 values [N], and the largest magnitude of each block.

    Args:
        values: of any sign if `signed`, else at least 0.
        signed: which fractions there are.
    """
    padded = nn.functional.pad(values, (0, -len(values) % BLOCK)).view(-1, BLOCK)
    largest = padded.abs().amax(1)
    fractions = _fractions(signed=signed).to(values.device)
    middles = (fractions[1:] + fractions[:-1]) / 2
    codes = torch.bucketize(
        padded / largest.clamp(min=torch.finfo(torch.float32).tiny)[:, None], middles, out_int32=True
    )
    return codes.view(-1)[: len(values)].to(torch.uint8), largest


def read_back(state: Mapping[str, Tensor], moment: str) -> Tensor:
    """Return a moment [N] in float32."""
    codes, largest = state[moment], state[moment + LARGEST]
    fractions = _fractions(signed=moment == "exp_avg").to(codes.device)
    return fractions[codes.int()] * largest.repeat_interleave(BLOCK)[: len(codes)]


@functools.cache
def _fractions(*, signed: bool) -> Tensor:
    """Return the 256 fractions that a code may stand for, ascending: 0, 1, and the middles of equal parts of decades.

    The decade below 1 is cut into the most parts, each one below it into half as many.
    """
    found = [torch.zeros(1), torch.ones(1)]
    for decade in range(DECADES):
        edges = torch.linspace(0.1, 1.0, 2 ** (DECADES - 1 - decade) * (1 if signed else 2) + 1, dtype=torch.float64)
        middles = ((edges[1:] + edges[:-1]) / 2 * 10.0**-decade).float()
        found += [middles, -middles] if signed else [middles]
    return torch.cat(found).sort().values


def _num_blocks(shape: tuple[int | None, ...]) -> int:
    return -(-functools.reduce(lambda a, b: a * (b or 0), shape, 1) // BLOCK)

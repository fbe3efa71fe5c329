"""Linear layers that hold their frozen weights in 4 or 8 bits, and multiply with them in the compute type.

A layer's product does not depend on whether gradients are kept, on the other rows of a batch, or on what passed before.
bitsandbytes' own layers promise none of it: for inference they pack their weights in another way, and in 8 bits they
round the inputs too, by what is in the batch. So transformers quantizes with them, and these take over what came of it.
"""

import functools
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function

from rlhf.errors import ConfigError

Kind = Literal["nf4", "int8"]
"""How weights are held. nf4: 4 bits each, normal float (Dettmers et al. 2023, arXiv:2305.14314, section 3); int8: 8
bits each, by the largest magnitude of a row (Dettmers et al. 2022, arXiv:2208.07339, section 2.1), of weights alone."""
BLOCK = 64
"""Weights that share a scale in nf4, as in the paper; in int8 the weights of a row share one."""


class QuantizedLinear(nn.Linear):
    """y = W x + b with a frozen W of shape [out, in]; its tensors are buffers, so nothing trains them."""

    kind: Kind
    scale: Tensor

    def __init__(self, in_features: int, out_features: int, bias: nn.Parameter | None, **held: Tensor) -> None:
        """Take `weight` and `scale` as the subclass keeps them; both on one device, which may be meta."""
        nn.Module.__init__(self)  # the plain layer would make a float32 weight
        self.in_features, self.out_features = in_features, out_features
        for name in ("weight", "scale"):
            self.register_buffer(name, held[name])
        self.bias = bias  # type: ignore[assignment]  # as nn.Linear, whose annotation leaves None out

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Return W [out, in]."""
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        """Return W x + b for inputs [..., in]."""
        return _Product.apply(input, self)  # type: ignore[no-any-return,no-untyped-call]

    @property
    def num_weights(self) -> int:
        """Numbers in W."""
        return self.in_features * self.out_features

    @property
    def num_bytes(self) -> int:
        """Bytes that hold W."""
        return self.weight.nbytes + self.scale.nbytes


class Nf4Linear(QuantizedLinear):
    """Two weights to a byte, [out * in / 2, 1] uint8, and a float32 scale for each `BLOCK` of them in reading order."""

    kind = "nf4"

    @classmethod
    def on_meta(cls, linear: nn.Linear) -> "Nf4Linear":
        """Return the layer without its numbers."""
        num = linear.in_features * linear.out_features
        weight = torch.empty((num + 1) // 2, 1, dtype=torch.uint8, device="meta")
        scale = torch.empty(-(-num // BLOCK), device="meta")
        return cls(linear.in_features, linear.out_features, linear.bias, weight=weight, scale=scale)

    @classmethod
    def quantizing(cls, linear: nn.Linear) -> "Nf4Linear":
        """Quantize a layer whose weights are on the CPU."""
        weight, state = library().functional.quantize_4bit(
            linear.weight.detach(), blocksize=BLOCK, compress_statistics=False, quant_type="nf4"
        )
        return cls(linear.in_features, linear.out_features, linear.bias, weight=weight, scale=state.absmax)

    @classmethod
    def holding(cls, layer: Any) -> "Nf4Linear":
        """Take over what a `bitsandbytes.nn.Linear4bit` holds."""
        weight, scale = layer.weight.data, layer.weight.quant_state.absmax
        return cls(layer.in_features, layer.out_features, layer.bias, weight=weight, scale=scale)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Return W [out, in]."""
        # On a CPU bitsandbytes 0.50 takes the wrong scales where a block of weights goes on in the next row.
        rows = self.out_features if self.in_features % BLOCK == 0 else 1
        state = self._state(torch.Size((rows, self.num_weights // rows)), dtype)
        flat = library().functional.dequantize_4bit(self.weight, state)
        return flat.view(self.out_features, self.in_features)  # type: ignore[no-any-return]

    def _state(self, shape: torch.Size, dtype: torch.dtype) -> Any:
        return library().functional.QuantState(
            absmax=self.scale, shape=shape, blocksize=BLOCK, quant_type="nf4", dtype=dtype
        )


class Int8Linear(QuantizedLinear):
    """One weight to a byte, [out, in] int8, and a float32 scale for each row, [out]: its largest magnitude."""

    kind = "int8"

    @classmethod
    def on_meta(cls, linear: nn.Linear) -> "Int8Linear":
        """Return the layer without its numbers."""
        weight = torch.empty(linear.out_features, linear.in_features, dtype=torch.int8, device="meta")
        scale = torch.empty(linear.out_features, device="meta")
        return cls(linear.in_features, linear.out_features, linear.bias, weight=weight, scale=scale)

    @classmethod
    def quantizing(cls, linear: nn.Linear) -> "Int8Linear":
        """Quantize a layer whose weights are on the CPU."""
        weight, scale, _ = library().functional.int8_vectorwise_quant(linear.weight.detach().to(torch.float16))
        return cls(linear.in_features, linear.out_features, linear.bias, weight=weight, scale=scale)

    @classmethod
    def holding(cls, layer: Any) -> "Int8Linear":
        """Take over what a `bitsandbytes.nn.Linear8bitLt` holds that was never called."""
        weight, scale = layer.weight.data, layer.weight.SCB
        return cls(layer.in_features, layer.out_features, layer.bias, weight=weight, scale=scale)

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Return W [out, in]."""
        return self.weight.to(dtype).mul_(self.scale[:, None] / 127.0)


LAYERS: dict[Kind, type[Nf4Linear] | type[Int8Linear]] = {"nf4": Nf4Linear, "int8": Int8Linear}


class _Product(Function):
    """W x + b of a frozen layer; W is made again in the backward pass, not kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return nn.functional.linear(x, layer.dequantized(x.dtype), layer.bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.dequantized(grad.dtype), None


def quantized_layers(module: nn.Module) -> list[tuple[str, QuantizedLinear]]:
    """Return the quantized layers in a module, with their names."""
    return [(name, part) for name, part in module.named_modules() if isinstance(part, QuantizedLinear)]


def quantized_tensors(module: nn.Module) -> list[Tensor]:
    """Return what the quantized layers in a module hold: packed weights and scales."""
    return [tensor for _, layer in quantized_layers(module) for tensor in layer.buffers()]


@functools.cache
def library() -> Any:
    """Return bitsandbytes.

    Raises:
        ConfigError: it is not installed, or does not load.
    """
    try:
        return import_module("bitsandbytes")
    except ModuleNotFoundError:
        fix = "pip install 'rlhf-ppo[quantized]'"
        raise ConfigError(f"model.quantize needs bitsandbytes, which is not installed - {fix}") from None
    except (ImportError, OSError, RuntimeError) as problem:
        line = [*str(problem).splitlines(), type(problem).__name__][0][:200]
        raise ConfigError(f"model.quantize: bitsandbytes does not load here ({line}) - leave it out") from None

"""Frozen weights of a model that computes in fewer digits: held once, and found again exactly where they are saved."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from rlhf.errors import CheckpointError

Sources = Mapping[str, Callable[[], nn.Module]]
"""How the names of parameters begin in a module, and what makes that part of it again as it was, in float32."""


class FrozenWeights:
    """The float32 values of frozen parameters that their module holds rounded, 2 bytes a parameter in bfloat16.

    Rounding changes nothing in a model that was published in bfloat16. Values that it did change are read again from
    where they came; those that came from memory are kept on the host.
    """

    def __init__(self, sources: Sources) -> None:
        self.kept: dict[str, Tensor] = {}
        """Float32 values on the host, by name."""
        self._sources = sources
        self._rounded: dict[str, nn.Parameter] = {}
        self._lost: set[str] = set()

    @torch.no_grad()
    def round(self, name: str, parameter: nn.Parameter, dtype: torch.dtype) -> None:
        """Convert a frozen float32 parameter in place."""
        exact, parameter.data = parameter.data, parameter.data.to(dtype)
        self._rounded[name] = parameter
        if not torch.equal(parameter.data.to(exact.dtype), exact):
            if self._source_of(name) is None:
                self._keep(name, exact)
            else:
                self._lost.add(name)

    @torch.no_grad()
    def keep(self, name: str, parameter: nn.Parameter, dtype: torch.dtype) -> None:
        """Convert a frozen float32 parameter in place that came from nowhere that the run could read again."""
        exact, parameter.data = parameter.data, parameter.data.to(dtype)
        self._rounded[name] = parameter
        self._keep(name, exact)

    @torch.no_grad()
    def exact(self) -> dict[str, Tensor]:
        """Return the float32 values by name, on the device of their parameters.

        Raises:
            ConfigError: a model that the run began with can no longer be read.
            CheckpointError: it holds other weights now.
        """
        found = {name: parameter.data.float() for name, parameter in self._rounded.items()}
        found |= {name: value.to(found[name].device, copy=True) for name, value in self.kept.items()}
        for beginning, make in self._sources.items():
            names = [name for name in self._lost if name.startswith(beginning) and name not in self.kept]
            read = _parameters(make) if names else {}
            for name in names:
                value = read.get(name.removeprefix(beginning))
                rounded = self._rounded[name].data
                if value is None or not torch.equal(value.to(rounded.device, rounded.dtype), rounded):
                    raise CheckpointError(
                        f"the model that this run began with has changed since: {name} is not what it was - put the "
                        "model back as it was and run the same again: the last checkpoint is whole"
                    )
                found[name] = value.to(rounded.device)
        return found

    @torch.no_grad()
    def replace(self, exact: Mapping[str, Tensor]) -> None:
        """Take other float32 values, which came from nowhere that the run could read again."""
        for name, parameter in self._rounded.items():
            parameter.copy_(exact[name])
            if torch.equal(parameter.data.float(), exact[name]):
                self.kept.pop(name, None)
                self._lost.discard(name)
            else:
                self._keep(name, exact[name])

    def _keep(self, name: str, exact: Tensor) -> None:
        self.kept[name] = exact.detach().to("cpu", copy=True)

    def _source_of(self, name: str) -> Callable[[], nn.Module] | None:
        return next((make for beginning, make in self._sources.items() if name.startswith(beginning)), None)


def _parameters(make: Callable[[], nn.Module]) -> dict[str, Tensor]:
    # A new adapter draws its weights from the global generator, whose state belongs to the run.
    with torch.random.fork_rng(devices=[]):
        return {name: parameter.data for name, parameter in make().named_parameters()}

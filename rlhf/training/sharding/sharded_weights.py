"""Float32 shards of a module's weights, which `Fsdp2` gathers in the compute type; AdamW steps on this process's."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm

from rlhf.training.frozen import FrozenWeights
from rlhf.training.sharding.fsdp2 import Fsdp2
from rlhf.training.sharding.weights import Summing
from rlhf.training.storage.schema import TensorForm


class _Place(NamedTuple):
    """Where a parameter is: a tied one is in several."""

    owner: nn.Module
    attribute: str
    parameter: nn.Parameter


class ShardedWeights:
    """The weights of a module under FSDP2, the masters being plain views of this process's shards.

    Parts that stay float32, such as a value head, are small: every process holds them whole.
    """

    def __init__(
        self,
        module: nn.Module,
        parts: Sequence[nn.Module],
        blocks: Sequence[nn.Module],
        dtype: torch.dtype,
        sharding: Fsdp2,
        *,
        keep_float32: Sequence[nn.Module] = (),
    ) -> None:
        """Shard a float32 module in place.

        Args:
            module: float32, on the host.
            parts: modules of it that passes go through by themselves.
            blocks: transformer blocks, each gathered by itself.
            dtype: what the module computes in.
            sharding: of the run.
            keep_float32: parts that stay float32.

        Raises:
            ConfigError: the module cannot be sharded as the launcher asks.
        """
        kept = [parameter for part in keep_float32 for parameter in part.parameters()]
        sharding.shard(module, parts, blocks, dtype, kept)
        self.module = module
        self._sharding = sharding
        self._places = [
            _Place(owner, name, parameter)
            for owner in module.modules()
            for name, parameter in owner._parameters.items()
            if parameter is not None
        ]
        self.parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.masters = {name: _local(parameter) for name, parameter in self.parameters.items()}
        self.frozen = FrozenWeights({})
        self._gathered: dict[int, Tensor] | None = None

    def sum_gradients(self, masters: Sequence[nn.Parameter], processes: Summing) -> None:
        """Take the shards' gradients, which backward summed, and sum those of whole weights."""
        named = {id(master): self.parameters[name] for name, master in self.masters.items()}
        whole = []
        for master in masters:
            parameter = named[id(master)]
            if isinstance(parameter, DTensor):
                grad, parameter.grad = parameter.grad, None
                master.grad = grad.to_local() if isinstance(grad, DTensor) else torch.zeros_like(master)
            else:
                if master.grad is None:
                    master.grad = torch.zeros_like(master)
                whole.append(master.grad)
        processes.sum_in_place(whole)

    def norm(self, masters: Sequence[nn.Parameter], processes: Summing) -> Tensor:
        """Return the norm of the whole gradients, a float64 scalar on the device, unread.

        Squares of shards are summed over the processes; those of whole weights are the same on each.
        """
        shards = {id(self.masters[name]) for name, each in self.parameters.items() if isinstance(each, DTensor)}
        of_shards = [master.grad for master in masters if master.grad is not None and id(master) in shards]
        of_whole = [master.grad for master in masters if master.grad is not None and id(master) not in shards]
        own, shared = (get_total_norm(each).to(self._sharding.device).double() ** 2 for each in (of_shards, of_whole))
        processes.sum_in_place([own])
        return torch.sqrt(own + shared)

    def discard(self) -> None:
        """Forget the shards' gradients."""
        for parameter in self.parameters.values():
            parameter.grad = None

    def publish(self) -> None:
        """Drop what was gathered from the shards as they were."""
        self._gathered = None
        self._sharding.reshard(self.module)

    def release(self) -> None:
        """Do nothing: the next step's gradients are new shards."""

    @torch.no_grad()
    def whole(self, name: str, own: Tensor) -> Tensor:
        """Gather a tensor in the form of master `name` on the first process's host; the others get nothing."""
        return self._whole(self.parameters[name], own)

    def own(self, name: str, whole: Tensor) -> Tensor:
        """Return this process's part of a whole tensor in the form of master `name`."""
        if not isinstance(self.parameters[name], DTensor):
            return whole
        parts = whole.chunk(self._sharding.num)
        return parts[self._sharding.rank] if self._sharding.rank < len(parts) else whole[:0]

    def saved(self) -> dict[str, Tensor]:
        """Gather the masters on the first process's host."""
        return {name: self.whole(name, master.detach()) for name, master in self.masters.items()}

    def forms(self) -> dict[str, TensorForm]:
        """Return the forms of the whole masters."""
        return {name: TensorForm(tuple(each.shape), torch.float32) for name, each in self.parameters.items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the shards from whole masters."""
        for name, master in self.masters.items():
            master.copy_(self.own(name, tensors[name]))
        self.publish()

    @torch.no_grad()
    def gather(self) -> None:
        """Gather all weights, frozen ones too, on the first process's host."""
        self._sharding.reshard(self.module)
        gathered: dict[int, Tensor] = {}
        for place in self._places:
            if id(place.parameter) not in gathered:
                gathered[id(place.parameter)] = self._whole(place.parameter, _local(place.parameter).detach())
        self._gathered = gathered

    @contextmanager
    def in_full_precision(self, *, takes_changes: bool = False) -> Iterator[None]:
        """Put what `gather` gathered into the module, for saving by the first process; changes do not stay."""
        if takes_changes:
            raise ValueError("weights in shards take changes by `load` alone")
        if self._gathered is None or self._sharding.rank:
            raise ValueError("gather() comes before, on every process, and the first process alone saves")
        made = {key: nn.Parameter(whole, requires_grad=False) for key, whole in self._gathered.items()}
        try:
            for place in self._places:
                place.owner._parameters[place.attribute] = made[id(place.parameter)]
            yield
        finally:
            for place in self._places:
                place.owner._parameters[place.attribute] = place.parameter

    def _whole(self, parameter: nn.Parameter, own: Tensor) -> Tensor:
        is_writer = self._sharding.rank == 0
        if isinstance(parameter, DTensor):
            shards = DTensor.from_local(
                own.to(self._sharding.device),
                parameter.device_mesh,
                parameter.placements,
                run_check=False,
                shape=parameter.shape,
                stride=parameter.stride(),
            )
            own = shards.full_tensor()
        return own.cpu().clone() if is_writer else own.new_empty(0, device="cpu")


def _local(parameter: nn.Parameter) -> nn.Parameter:
    """Return the part of a parameter that this process holds; it shares the memory of the shard."""
    if not isinstance(parameter, DTensor):
        return parameter
    shard: Tensor = parameter.detach().to_local()  # type: ignore[attr-defined]  # detached, it is a DTensor still
    return nn.Parameter(shard, requires_grad=parameter.requires_grad)

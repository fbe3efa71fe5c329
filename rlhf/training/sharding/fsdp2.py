"""Every process holds a part of every weight, by torch's `fully_shard`: blocks are whole only while they compute.

A process cannot pass through a model alone. So all make equally many passes (`equalised`), or hold the model whole for
a while and pass through it as often as each needs (`whole`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import ClassVar, TypeVar

import torch
import torch.distributed
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard

from rlhf.errors import ConfigError, LostProcess
from rlhf.training.launch import Fsdp2Settings

T = TypeVar("T")

LIBRARIES = ("gloo", "nccl", "connection closed", "connection reset")
"""What a message of the communication library names."""


class Fsdp2:
    """The strategy of a launch with FSDP2; `Replicated` has the same methods."""

    name: ClassVar[str] = "fsdp2"

    def __init__(self, settings: Fsdp2Settings, device: torch.device, num: int, rank: int) -> None:
        """Take what the launcher asks for, once the processes have joined.

        Raises:
            ConfigError: there is one process.
        """
        if num == 1:
            raise ConfigError(
                "accelerate launch: FSDP over 1 process shards nothing - set num_processes to 2 or more, or leave FSDP "
                "out (configs/accelerate/one_gpu.yaml)"
            )
        self.settings = settings
        self.device = device
        self.num = num
        self.rank = rank
        self._mesh = init_device_mesh(device.type, (num,))
        self._entries: dict[nn.Module, _Entry] = {}

    def loading_device(self, device: torch.device) -> torch.device:
        """Return the host: a model goes to the device block by block, as its shards."""
        return torch.device("cpu")

    def inside(self, module: nn.Module, call: Callable[[], T]) -> T:
        """Return what `call` returns, with the weights outside of the blocks whole; the blocks see to theirs.

        Tensors that it returns by themselves, or in tuples, lists and dicts, may be used for a backward pass.
        """
        entry = self._entries.get(module)
        if entry is None or entry.is_running:
            return call()
        entry.is_running = True
        try:
            return entry(call)  # type: ignore[no-any-return]
        finally:
            entry.is_running = False

    @contextmanager
    def whole(self, *modules: nn.Module) -> Iterator[None]:
        """Hold modules whole: inside, no pass without gradients needs another process; all enter and leave together."""
        with ExitStack() as stack:
            for module in modules:
                if module in self._entries:
                    stack.enter_context(self._unsharded(self._entries[module], module))
            yield

    def equalised(self, parts: Sequence[T], spare: T) -> list[tuple[T, bool]]:
        """Return as many parts as the process with most has, and whether they count; all call this together."""
        most = torch.tensor([len(parts)], device=self.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return [(part, True) for part in parts] + [(spare, False)] * (int(most) - len(parts))

    @contextmanager
    def noticing_loss(self) -> Iterator[None]:
        """Turn what a pass raises because another process ended into one line.

        Raises:
            LostProcess: the communication library failed.
        """
        try:
            yield
        except RuntimeError as error:
            line = next(iter(str(error).splitlines()), "")
            if not isinstance(error, torch.distributed.DistError) and not any(
                name in str(error).lower() for name in LIBRARIES
            ):
                raise
            raise LostProcess(
                f"another process ended, or did not answer in time; its own message says why ({line:.200})"
            ) from error

    def shard(
        self,
        module: nn.Module,
        parts: Sequence[nn.Module],
        blocks: Sequence[nn.Module],
        dtype: torch.dtype,
        kept: Sequence[nn.Parameter] = (),
    ) -> None:
        """Leave this process its shards of a module, in place; all call this together.

        Args:
            module: holds the same weights on every process.
            parts: modules of it that passes go through by themselves, such as the language model of a policy.
            blocks: transformer blocks, each gathered by itself; the other weights are gathered together.
            dtype: what the gathered weights are rounded to; gradients are summed in float32.
            kept: parameters that every process holds whole.

        Raises:
            ConfigError: the launcher names another class of blocks, or a weight has no axis to be cut along.
        """
        self._check(module, blocks)
        for parameter in kept:
            parameter.data = parameter.data.to(self.device)
        offloads = self.settings.offload and self.device.type != "cpu"
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
        entry = _Entry(module)
        for part in (*blocks, entry):
            fully_shard(
                part,
                mesh=self._mesh,
                reshard_after_forward=self.settings.reshard_after_forward,
                mp_policy=policy,
                offload_policy=CPUOffloadPolicy() if offloads else OffloadPolicy(),
                ignored_params=set(kept),
            )
        for sharded in _sharded(entry):
            # Exact sums: without these two gloo may average, and each acts on one module alone.
            sharded.set_force_sum_reduction_for_comms(True)
            sharded.set_gradient_divide_factor(1.0)
        self._entries |= dict.fromkeys((module, *parts), entry)
        with torch.no_grad():
            entry(_nothing)
        with self.whole(module):  # the gathered parameters are made here, while each is trained or not as it should be
            pass

    def reshard(self, module: nn.Module) -> None:
        """Drop gathered weights: those of the shards have changed."""
        for sharded in _sharded(self._entries[module]):
            sharded.reshard()

    @contextmanager
    def _unsharded(self, entry: "_Entry", module: nn.Module) -> Iterator[None]:
        inner = [part for part in module.modules() if isinstance(part, FSDPModule)]
        held = [entry, *inner]
        try:
            for each in held:
                each.set_reshard_after_forward(False, recurse=False)  # type: ignore[operator]
                each.unshard()  # type: ignore[operator]
            yield
        finally:
            for each in held:
                each.reshard()  # type: ignore[operator]
                each.set_reshard_after_forward(self.settings.reshard_after_forward, recurse=False)  # type: ignore[operator]

    def _check(self, module: nn.Module, blocks: Sequence[nn.Module]) -> None:
        found = sorted({type(block).__name__ for block in blocks})
        wanted = self.settings.blocks
        if wanted and not set(found) <= set(wanted):
            raise ConfigError(
                f"accelerate launch: fsdp_transformer_layer_cls_to_wrap: {', '.join(wanted)}, but the blocks of the "
                f"model are {', '.join(found)} - leave the key out: the blocks are found"
            )
        if bad := [name for name, parameter in module.named_parameters() if parameter.ndim == 0]:
            raise ConfigError(
                f"accelerate launch: FSDP cannot shard {bad[0]}, a single number - leave FSDP out "
                "(configs/accelerate/two_processes.yaml)"
            )


class _Entry(nn.Module):
    """The one module whose call gathers the weights outside of the blocks; what is called inside it is up to the call.

    `fully_shard` gathers a weight when the module that owns it is called. Much here reads weights without such a call:
    the vocabulary head has a backward of its own, and trunk and head are called apart.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.is_running = False

    def forward(self, call: Callable[[], T]) -> T:
        """Return what `call` returns."""
        return call()


def _sharded(entry: _Entry) -> list[FSDPModule]:
    return [part for part in entry.modules() if isinstance(part, FSDPModule)]


def _nothing() -> None:
    """Make no pass: the first call of an entry only tells its blocks that they belong to it."""

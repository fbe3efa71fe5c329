"""A GPU emulated on a CPU: tensors say that they are on `cuda:0`, devices do not mix, and host waits are counted.

Storages carry the device they claim. An operation on tensors of both devices raises, as CUDA would. Whatever makes the
host wait until the device has finished (`item`, `nonzero`, an index of truth values, a blocking copy) is noted with the
line of `rlhf` that asked for it. Numbers are computed on the CPU, so results may be compared with those of a CPU.
"""

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
WAITING = {
    *("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "bincount", "unique_dim"),
    *("_unique2", "unique_consecutive", "repeat_interleave"),
}
"""Operations whose result, or its shape, the host must know."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
COPIES = {"copy_", "_to_copy", "_copy_from"}
GETTERS = {
    torch.Tensor.device.__get__: lambda device: device,
    torch.Tensor.is_cuda.__get__: lambda device: device.type == "cuda",
    torch.Tensor.is_cpu.__get__: lambda device: device.type == "cpu",
    torch.Tensor.get_device: lambda device: -1 if device.index is None else device.index,
}
ON_HOST = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.__array__)
"""What gives numbers to Python without an operation of torch."""


class Emulator:
    """The state of the emulated device: which storages lie on it, and where the host waited for it."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        """What made the host wait, and at which line of rlhf: how often."""
        self.operations: Counter[str] = Counter()
        """Operations on the device, by name."""
        self._on_gpu: dict[int, StorageWeakRef] = {}
        self.wanted = threading.local()

    def device(self, tensor: Tensor) -> torch.device:
        return GPU if _key(tensor) in self._on_gpu else CPU

    def put(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._on_gpu[storage._cdata] = StorageWeakRef(storage)  # which keeps the address from being used again
        return tensor

    def wait(self, what: str) -> None:
        self.waits[f"{what} at {_place()}"] += 1

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        """Count the waits of a block of code alone, in what this yields."""
        before = Counter(self.waits)
        found: Counter[str] = Counter()
        yield found
        found.update(self.waits - before)

    def moved(self, tensor: Tensor, device: torch.device, *, non_blocking: bool = False) -> Tensor:
        """Return a copy on the device, the tensor itself if it is there."""
        if self.device(tensor).type == device.type:
            return tensor
        if device.type == "cpu" or not non_blocking:
            self.wait(f"copy to {device.type}")
        with self.making(device):
            return tensor.clone()

    def handed_over(self, func: Any, tensor: Tensor) -> None:
        """Note that Python gets the numbers of a tensor.

        Raises:
            TypeError: NumPy cannot have those of a GPU.
        """
        if self.device(tensor) == GPU:
            if func is not torch.Tensor.tolist:
                raise TypeError(f"can't convert cuda:0 device type tensor to numpy at {_place()}")
            self.wait("tolist")

    @contextmanager
    def making(self, device: torch.device | None) -> Iterator[None]:
        """Make the results of operations claim this device."""
        before = getattr(self.wanted, "device", None)
        self.wanted.device = device
        try:
            yield
        finally:
            self.wanted.device = before

    def check(self, name: str, args: Any, tensors: list[Tensor]) -> None:
        """Refuse mixed devices, and note what waits.

        Raises:
            RuntimeError: tensors of both devices.
        """
        off = [tensor for tensor in tensors if self.device(tensor) == CPU and tensor.dim() > 0]
        if name in WAITING:
            self.wait(name)
        if name in INDEXING:
            self._check_index(name, args)
        elif name in COPIES:
            if name == "copy_" and len(tensors) > 1 and self.device(tensors[0]) != self.device(tensors[1]):
                is_free = len(args) > 2 and args[2] and self.device(args[0]) == GPU
                if not is_free and tensors[1].dim() > 0:
                    self.wait("copy_")
        elif off and len(off) < len(tensors):
            where = [f"{self.device(tensor)} {list(tensor.shape)}" for tensor in tensors]
            raise RuntimeError(f"Expected all tensors to be on the same device: {name} of {where} at {_place()}")

    def _check_index(self, name: str, args: Any) -> None:
        indices = [index for index in args[1] if index is not None]
        values = [] if "put" not in name else [args[2]]
        if self.device(args[0]) == CPU and any(self.device(each) == GPU for each in indices):
            raise RuntimeError(f"indices should be on the CPU, as the indexed tensor is: {name} at {_place()}")
        if any(value.dim() > 0 and self.device(value) != self.device(args[0]) for value in values):
            raise RuntimeError(f"expected values on the device of the indexed tensor: {name} at {_place()}")
        for index in indices:
            fills = bool(values) and values[0].numel() == 1
            if index.dtype == torch.bool and self.device(args[0]) == GPU and not fills:
                self.wait("index of truth values")
            if self.device(index) == CPU and self.device(args[0]) == GPU:
                self.wait("index on the CPU")

    @contextmanager
    def __call__(self) -> Iterator["Emulator"]:
        with ExitStack() as stack:
            stack.enter_context(_Operations(self))
            stack.enter_context(_Calls(self))
            # Python code that runs in a backward pass asks too, and there torch has switched `_Calls` off.
            setattr(torch.Tensor, "device", property(self.device))  # noqa: B010 - a property of the library's class
            stack.callback(delattr, torch.Tensor, "device")
            yield self


class _Operations(TorchDispatchMode):
    """Every operation, that of a backward pass too: its inputs are checked and its results claim a device."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        self.emulator = emulator

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, emulator = kwargs or {}, self.emulator
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        wanted = getattr(emulator.wanted, "device", None)
        on_gpu = any(emulator.device(tensor) == GPU for tensor in tensors)
        name = func._schema.name.removeprefix("aten::")
        if on_gpu and wanted is None:
            emulator.operations[name] += 1
            emulator.check(name, args, tensors)
            if name in INDEXING:
                on_gpu = emulator.device(args[0]) == GPU
        known = {None, *(_key(tensor) for tensor in tensors)}
        result = func(*args, **kwargs)
        if wanted == GPU or (wanted is None and on_gpu):
            for each in tree_flatten(result)[0]:
                if isinstance(each, Tensor) and _key(each) not in known:
                    emulator.put(each)
        return result


class _Calls(TorchFunctionMode):
    """Calls that name a device, ask for one, or hand numbers to Python."""

    def __init__(self, emulator: Emulator) -> None:
        super().__init__()
        self.emulator = emulator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, emulator = dict(kwargs or {}), self.emulator
        if func in GETTERS:
            return GETTERS[func](emulator.device(args[0]))
        if func in ON_HOST:
            emulator.handed_over(func, args[0])
        if func in (torch.Tensor.cpu, torch.Tensor.cuda):
            return emulator.moved(args[0], CPU if func is torch.Tensor.cpu else GPU)
        if func is torch.Tensor.to:
            return self._to(*args, **kwargs)
        device = _named(kwargs.get("device"))
        if device is None:
            return func(*args, **kwargs)
        if func is torch.tensor and device == GPU:
            emulator.wait("tensor of numbers")
        with emulator.making(device):
            made = func(*args, **{**kwargs, "device": CPU})
        return emulator.put(made) if func is torch.tensor and device == GPU else made  # it is no operation

    def _to(self, tensor: Tensor, *given: Any, **named: Any) -> Tensor:
        device, non_blocking = _named(named.pop("device", None)), bool(named.pop("non_blocking", False))
        rest: list[Any] = []
        for each in given:
            if isinstance(each, Tensor):
                device, rest = self.emulator.device(each), [*rest, each.dtype]
            elif isinstance(each, bool):
                non_blocking = non_blocking or each
            elif isinstance(each, torch.dtype):
                rest.append(each)
            elif each is not None:
                device = _named(each)
        changed = torch.Tensor.to(tensor, *rest, **named) if rest or named else tensor
        return changed if device is None else self.emulator.moved(changed, device, non_blocking=non_blocking)


def grouped(tensors: list[list[Tensor]], with_indices: bool = False) -> dict[Any, Any]:
    """Do what torch's own function does for tensors of one device and type: put all into one group."""
    first = tensors[0][0]
    return {(first.device, first.dtype): (tensors, [*range(len(tensors[0]))] if with_indices else None)}


def _named(device: Any) -> torch.device | None:
    if device is None or isinstance(device, bool):
        return None
    found = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return GPU if found.type == "cuda" else found


def _key(tensor: Tensor) -> int | None:
    """Return what identifies the memory of a tensor, None for one of a library's own form, on the CPU."""
    try:
        return tensor.untyped_storage()._cdata
    except NotImplementedError:
        return None


def _place() -> str:
    """Return the innermost line of rlhf on the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if "/rlhf/" in path and "/tests/" not in path:
            return f"{path.rpartition('/rlhf/')[2]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "?"

"""Single files of a checkpoint: tensors and text, on the disk when the call returns."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from rlhf.disk import fsync


def write_tensors(path: Path, group: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors, and wait until they are on the disk."""
    save_file(_without_shared_memory(group), path)
    fsync(path)


def _without_shared_memory(group: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous CPU tensors, no two of which share memory, as safetensors demands."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in group.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if storage in seen else tensor
        seen.add(storage)
    return separate


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, and wait until it is on the disk."""
    path.write_text(text, encoding="utf-8")
    fsync(path)

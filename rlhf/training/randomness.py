"""Random generators: made from one seed, independent of each other, saved and restored without pickle."""

import hashlib
import json
import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from rlhf.errors import CheckpointError

GLOBAL_GENERATORS = ("python", "numpy", "torch")
"""The global generators of the CPU, as `global_rng_state` names them."""


def gpu_generators() -> tuple[str, ...]:
    """Return the names of the global generators of the GPU: none without one."""
    return ("torch_cuda",) if torch.cuda.is_available() else ()


def seed_everything(seed: int) -> None:
    """Seed the global generators of python, numpy and torch (CPU and GPU), which libraries draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def generator(seed: int, *stream: int | str) -> torch.Generator:
    """Return a CPU generator whose numbers are independent of those of any other seed or stream.

    Args:
        seed: the run's seed.
        *stream: what the numbers are for, such as `"rollout", rank`. Equal arguments give equal numbers.
    """
    digest = hashlib.sha256(json.dumps([seed, *stream]).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def generator_state(generator: torch.Generator) -> Tensor:
    """Return the state of a generator as a uint8 tensor, which a checkpoint can hold."""
    return generator.get_state().clone()


def restore(generator: torch.Generator, state: Tensor) -> None:
    """Put a generator back into a saved state.

    Raises:
        CheckpointError: the state belongs to another kind of generator.
    """
    try:
        generator.set_state(state)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"the saved state of a random generator does not fit: {error}") from error


def global_rng_state() -> dict[str, Tensor]:
    """Return the states of the global generators of python, numpy and torch, as uint8 tensors.

    Among GPUs, only the one that this process uses is included.
    """
    numpy_state = np.random.get_state(legacy=False)
    numpy_state["state"]["key"] = numpy_state["state"]["key"].tolist()
    state = {
        "python": _to_bytes(random.getstate()),
        "numpy": _to_bytes(numpy_state),
        "torch": torch.get_rng_state().clone(),
    }
    if torch.cuda.is_available():
        state["torch_cuda"] = torch.cuda.get_rng_state().clone()
    return state


def restore_global_rng_state(state: Mapping[str, Tensor]) -> None:
    """Put the global generators back into the states that `global_rng_state` returned.

    Raises:
        CheckpointError: a state is missing or no state, or it was saved with a GPU and there is none now, or vice
            versa.
    """
    expected = {*GLOBAL_GENERATORS, *gpu_generators()}
    if set(state) != expected:
        raise CheckpointError(
            f"the checkpoint holds the random generators {sorted(state)}, this machine has {sorted(expected)}; "
            "resume on the same kind of device"
        )
    try:
        _restore_all(state)
    except (ValueError, TypeError, LookupError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"the saved state of a random generator does not fit: {error}") from error


def _restore_all(state: Mapping[str, Tensor]) -> None:
    version, internal, gauss = json.loads(state["python"].numpy().tobytes())
    random.setstate((version, tuple(internal), gauss))
    numpy_state = json.loads(state["numpy"].numpy().tobytes())
    numpy_state["state"]["key"] = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy_state)
    torch.set_rng_state(state["torch"])
    if "torch_cuda" in state:
        torch.cuda.set_rng_state(state["torch_cuda"])


def _to_bytes(state: object) -> Tensor:
    return torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)

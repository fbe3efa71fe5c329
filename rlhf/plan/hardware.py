"""Devices as their makers describe them, and machines made of them; importable without torch."""

import re
from dataclasses import dataclass

from rlhf.errors import ConfigError

GIB = 2.0**30
PER_NODE = 8
"""Devices that share a fast link."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """What the phases of a step make of a device: shares of its rates, and what each block waits for besides.

    The defaults are for accelerators, from what others published. `calibration.py` fits them to runs of one's own.
    """

    training: float = 0.40
    """Share of `flops` in forward and backward passes: 38 % to 43 % when Llama 3 was pretrained on H100
    (arXiv:2407.21783, table 4)."""
    inference: float = 0.50
    """Of passes without gradients. Assumed: they have no second pass over memory."""
    decoding: float = 0.50
    """Of decode steps, where products and not the memory limit them. Assumed, as `inference`."""
    reading: float = 0.94
    """Share of `bandwidth` in decoding: 5.1 ms for the 16 GB of an 8B model on H100, with CUDA graphs."""
    updating: float = 1.0
    """Share of `bandwidth` in optimizer steps. Assumed: they are small beside the rest."""
    launch: float = 1e-4
    """Seconds of a decode step that a block's kernels take to start, without CUDA graphs: 8.4 ms instead of 5.1 for 32
    blocks."""
    pass_launch: float = 0.0
    """The same in a pass, forward or backward: on accelerators hidden behind the work of a microbatch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One accelerator, or the processor of a machine."""

    memory: float
    """Bytes."""
    flops: float
    """Dense bfloat16 operations a second, accumulated in float32."""
    bandwidth: float
    """Bytes a second from its memory."""
    link: float
    """Bytes a second to a device of the same node, in one direction."""
    network: float = 25e9
    """Bytes a second to a device of another node: 200 Gbit/s each, unless its usual nodes have more."""
    efficiency: Efficiency = Efficiency()
    """What the phases of a step make of it."""


DEVICES = {
    "B200-180GB": Device(memory=180e9, flops=2250e12, bandwidth=8.0e12, link=900e9, network=50e9),
    "H200-141GB": Device(memory=141e9, flops=989e12, bandwidth=4.8e12, link=450e9, network=50e9),
    "H100-80GB": Device(memory=80e9, flops=989e12, bandwidth=3.35e12, link=450e9, network=50e9),
    "A100-80GB": Device(memory=80e9, flops=312e12, bandwidth=2.04e12, link=300e9),
    "A100-40GB": Device(memory=40e9, flops=312e12, bandwidth=1.56e12, link=300e9),
    "L40S-48GB": Device(memory=48e9, flops=362e12, bandwidth=864e9, link=32e9),
    "RTX4090-24GB": Device(memory=24e9, flops=165e12, bandwidth=1.01e12, link=32e9),
    "L4-24GB": Device(memory=24e9, flops=121e12, bandwidth=300e9, link=32e9),
}
"""From the makers' data sheets. The memory is the nominal one; drivers take a little of it (`memory.RESERVED`)."""
_WRITTEN = re.compile(r"(?:(?P<num>\d+)x)?(?P<name>[A-Za-z0-9-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Equal devices, `PER_NODE` to a node."""

    name: str
    """Of the device."""
    num: int
    device: Device
    """One of them."""

    @property
    def link(self) -> float:
        """Bytes a second between devices, in one direction: of the slowest link that a sum over all of them crosses."""
        return self.device.link if self.num <= PER_NODE else self.device.network


def hardware_of(text: str) -> Hardware:
    """Return the machine of a description such as `8xH100-80GB`.

    Raises:
        ConfigError: no such device or number.
    """
    found = _WRITTEN.fullmatch(text)
    known = {name.lower(): name for name in DEVICES}
    name = known.get(found["name"].lower()) if found else None
    if found is None or name is None or int(found["num"] or 1) == 0:
        raise ConfigError(f"--hardware: expected NxDEVICE with a DEVICE of {', '.join(DEVICES)}, found {text!r}")
    return Hardware(name=name, num=int(found["num"] or 1), device=DEVICES[name])

"""The processes of a run: which one this is, and sums over all of them."""

import atexit
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import gather_object
from torch import Tensor

from rlhf.errors import ConfigError
from rlhf.training.agreement import failure_of, first_error, noticing_loss
from rlhf.training.launch import check_launch, check_plain_launch, fsdp2_settings, hidden_from_accelerate
from rlhf.training.rendezvous import joined, launcher_of
from rlhf.training.sharding.fsdp2 import Fsdp2
from rlhf.training.sharding.replicated import Replicated

T = TypeVar("T")

FLAT_ELEMENTS = 2**25
"""Numbers summed in one call: 128 MiB of float32."""
ANSWER_SECONDS = 1800.0
"""How long a process waits for another: far above the longest that one works alone (a save, a reward)."""


class Processes:
    """A thin layer over `Accelerator`: data parallelism by explicit sums, so that uneven shares cannot hang.

    Every process holds the whole model, and gradients are summed once per optimizer step, after the last microbatch;
    or the launcher asks for shards, and `sharding` says what that takes.
    """

    def __init__(
        self,
        *,
        trackers: Sequence[str] = (),
        expected: int | None = None,
        project_dir: str | None = None,
        timeout: float = ANSWER_SECONDS,
        plain: str | None = "this command",
    ) -> None:
        """Join the other processes.

        Args:
            trackers: names that accelerate knows.
            expected: number of processes that the user asked for.
            project_dir: where trackers write.
            timeout: seconds that a process waits for another before it ends.
            plain: what this is, if it does nothing with the launcher's FSDP and mixed_precision; None for a stage that
                trains.

        Raises:
            LostProcess: another process did not come within a minute.
            ConfigError: a different number of processes was started, the launcher asks for something that is not
                supported, or a tracker is not installed.
        """
        check_launch(os.environ)
        if plain is not None:
            check_plain_launch(os.environ, plain)
        settings = fsdp2_settings(os.environ)
        if missing := sorted(set(trackers) - {str(name) for name in get_available_trackers()}):
            raise ConfigError(f"logging.trackers: {', '.join(missing)} not installed - install it, or leave it out")
        self._launcher = launcher_of(os.environ)
        with hidden_from_accelerate():
            self.accelerator = joined(
                lambda handlers: Accelerator(
                    cpu=not torch.cuda.is_available(),
                    log_with=list(trackers) or None,
                    project_dir=project_dir,
                    kwargs_handlers=handlers,
                ),
                os.environ,
                timedelta(seconds=timeout),
            )
        atexit.register(_leave)  # so that the backend does not warn when the interpreter exits
        if expected is not None and expected != self.num:
            raise ConfigError(
                f"expected_processes: {expected}, but {self.num} started - on a machine without GPU accelerate starts "
                "one unless --multi_gpu is given or the config file says `distributed_type: MULTI_GPU`"
            )

        self.sharding: Replicated | Fsdp2 = Replicated()
        """How the weights lie on the processes."""
        if settings is not None:
            self.sharding = Fsdp2(settings, self.device, self.num, self.rank)

    @property
    def num(self) -> int:
        """Processes of the run."""
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        """This process, from 0."""
        return int(self.accelerator.process_index)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return torch.device(self.accelerator.device)

    def sums(self, numbers: Sequence[float]) -> list[float]:
        """Return the sum of each number over all processes (in float64)."""
        if self.num == 1:
            return [float(number) for number in numbers]
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        with noticing_loss():
            total = self.accelerator.reduce(torch.tensor(list(numbers), dtype=dtype, device=self.device), "sum")
        return [float(number) for number in total.tolist()]

    def any(self, condition: bool) -> bool:
        """Whether the condition holds on any process; all get the same answer."""
        return self.sums([float(condition)])[0] > 0

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes; every process passes the same shapes."""
        if self.num == 1 or not tensors:
            return
        for group in _groups(tensors):
            with noticing_loss():
                flat = self.accelerator.reduce(torch.cat([tensor.reshape(-1) for tensor in group]), "sum")
            for tensor, part in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def gathered(self, items: list[Any]) -> list[Any]:
        """Return the items of all processes, in the order of the processes."""
        if self.num == 1:
            return list(items)
        with noticing_loss():
            return gather_object(items)  # type: ignore[no-any-return]

    def agreed(self, call: Callable[[], T]) -> T:
        """Call a function that may fail on one process alone; if it does, all processes raise the same error.

        Every process calls this together, and the function must not communicate.
        """
        if self.num == 1:
            return call()
        own: Exception | None = None
        result: T | None = None
        try:
            result = call()
        except Exception as error:
            own = error
        failures = self.gathered([] if own is None else [failure_of(self.rank, own)])
        if failures:
            raise first_error(failures, self.rank, own)
        return result  # type: ignore[return-value]

    def wait(self) -> None:
        """Wait until every process is here."""
        with noticing_loss():
            self.accelerator.wait_for_everyone()

    @property
    def is_orphan(self) -> bool:
        """Whether the launcher that started this process is gone."""
        return self._launcher is not None and os.getppid() != self._launcher

    def say(self, line: str) -> None:
        """Print a line, once."""
        if self.is_main:
            print(line, flush=True)


def is_main_by_launch() -> bool:
    """Whether the launcher made this the process that prints; known before the processes connect."""
    return os.environ.get("RANK", "0") == "0"


def _leave() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _groups(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    groups: list[list[Tensor]] = [[]]
    size = 0
    for tensor in tensors:
        if groups[-1] and size + tensor.numel() > FLAT_ELEMENTS:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.numel()
    return groups

"""The responses of the next PPO step, drawn by a server while this step trains.

They come from the weights of one step before. Old logprobs are the trainer's all the same, so PPO's ratio begins at 1,
and the importance weights of `engine.correction` account for the older weights as they do for a server's rounding.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

from rlhf.batches import Samples
from rlhf.config.engine import ServerEngineSection
from rlhf.data.records import Prompt
from rlhf.ppo.rollout import Sampled
from rlhf.ppo.starts.start_states import StartStates
from rlhf.ppo.trainer import PPO
from rlhf.sampling.engines.server import ServerEngine
from rlhf.training.randomness import generator


@dataclass(frozen=True, slots=True)
class _Pending:
    starts: StartStates
    samples: Future[Samples]
    stop: threading.Event


class Ahead:
    """Draws one batch ahead, in a thread of its own; the server has one set of weights, so there is never a second."""

    def __init__(self, trainer: PPO, engine: ServerEngine) -> None:
        self._trainer = trainer
        self._engine = engine
        self._tokenizer = deepcopy(trainer.collector.tokenizer)  # two threads may not encode with the same one
        self._pending: _Pending | None = None

    def begin(self, index: int, prompts: Sequence[Prompt], *, has_weights: bool) -> None:
        """Start to draw the responses of PPO step `index`.

        Args:
            index: 0-based.
            prompts: of this process.
            has_weights: whether the server has the weights as they are now; else it gets them first.

        Raises:
            EngineError: the server did not take the weights.
        """
        collector = self._trainer.collector
        starts = self._trainer.start_states(prompts)
        if not has_weights:
            with collector.phases("generation"):
                collector.give_weights(starts)
        numbers, stop = generator(self._trainer.config.seed, "ahead", index), threading.Event()
        decoding = collector.decoding(self._tokenizer)
        told = collector.asking_early(starts, self._tokenizer)
        draw = partial(self._engine.sample, starts.states, decoding, numbers, starts.num_forced, told, stop)
        self._pending = _Pending(starts, _started(draw), stop)

    def take(self) -> Sampled | None:
        """Wait for the responses that are on the way; None where there are none.

        Raises:
            EngineError: the server failed.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return None
        collector = self._trainer.collector
        with collector.phases("generation"):
            samples = pending.samples.result()
        return collector.sampled(pending.starts, samples)

    def drop(self) -> None:
        """Forget what is on the way, and ask the server for nothing further."""
        if self._pending is not None:
            self._pending.stop.set()
            self._pending = None


def _started(draw: Callable[[], Samples]) -> Future[Samples]:
    future: Future[Samples] = Future()

    def work() -> None:
        try:
            future.set_result(draw())
        except BaseException as problem:  # raised again by who waits for the result
            future.set_exception(problem)

    threading.Thread(target=work, name="ahead", daemon=True).start()
    return future


def ahead_of(trainer: PPO) -> Ahead | None:
    """Return what draws ahead for a trainer; None where its engine does not."""
    section, engine = trainer.config.engine, trainer.collector.engine
    if not (isinstance(section, ServerEngineSection) and section.ahead and isinstance(engine, ServerEngine)):
        return None
    return Ahead(trainer, engine)

"""Where the prompts of each step come from: a shuffled list, or a stream in its own order."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

from rlhf.config import PPOSettings
from rlhf.config.engine import ServerEngineSection
from rlhf.config.shared import FittingSection
from rlhf.data.intake import Outcome
from rlhf.data.reading.column_names import in_our_names
from rlhf.data.records import Message, Prompt, Row
from rlhf.errors import ConfigError, DataError
from rlhf.training.storage.fingerprint import json_digest
from rlhf.training.storage.manifest import JSON

GivenPrompt = str | list[Message] | Mapping[str, Any]
"""A prompt given from Python: text, messages, or a row with `prompt` and the columns that rewards read."""

MOST_DROPPED = 10_000
"""A run stops when this many prompts of a stream in a row do not fit."""


class PromptSource(Protocol):
    """Gives each step its prompts; the same on every process."""

    def batch(self, step: int) -> Sequence[Prompt] | None:
        """Return the prompts of PPO step `step` over all processes, None when there are none left."""

    def digest(self) -> str:
        """Return a string that identifies these prompts, as far as they are known before the run."""


class ListedPrompts:
    """Prompts that are all known: reshuffled each epoch, without end."""

    def __init__(self, prompts: Sequence[Prompt], config: PPOSettings) -> None:
        """Take the prompts of the whole data set."""
        self.prompts = prompts
        self._order = PromptOrder(len(prompts), config.prompts_per_step, config.seed)

    def batch(self, step: int) -> list[Prompt]:
        """Return the prompts of a step; they depend on its number alone."""
        return [self.prompts[place] for place in self._order.batch(step)]

    def digest(self) -> str:
        """Return a sha256 of prompts and columns."""
        content: list[JSON] = [
            [prompt.text, {name: str(cell) for name, cell in prompt.columns.items()}] for prompt in self.prompts
        ]
        return json_digest(content)


class StreamedPrompts:
    """Prompts from an iterator, read only when they are needed."""

    def __init__(
        self,
        given: Iterable[GivenPrompt],
        make: Callable[[Row], Outcome[Prompt]],
        check: Callable[[Sequence[Prompt]], None],
        config: PPOSettings,
        num_given: int = 0,
    ) -> None:
        """Take the iterable, a function that tokenizes a row, and one that checks the prompts of a batch.

        The iterable begins with the prompts of step `num_given`.

        Raises:
            ConfigError: a run that may go back to a checkpoint would need earlier prompts again; one that draws ahead
                would lose those of a step that it does not do.
        """
        if isinstance(config.engine, ServerEngineSection) and config.engine.ahead:
            raise ConfigError(
                "engine.ahead: it reads prompts a step early, of an iterator too - give a list of prompts"
            )
        if config.guards.rollback is not None:
            raise ConfigError("guards.rollback: an iterator of prompts cannot be read again - give a list of prompts")
        self._rows = rows_of(given, config.prompts)
        self._make = make
        self._check = check
        self._size = config.prompts_per_step
        self._num_given = num_given

    def batch(self, step: int) -> list[Prompt] | None:
        """Return the next prompts; a resumed run skips those of earlier steps."""
        for _ in range(self._num_given, step):
            self._next()
        self._num_given = step + 1
        return self._next()

    def digest(self) -> str:
        """Return a constant: nobody knows a stream before reading it."""
        return "a stream"

    def _next(self) -> list[Prompt] | None:
        """Return a whole batch, or None: an incomplete last batch is left out."""
        kept: list[Prompt] = []
        num_dropped = 0
        while len(kept) < self._size:
            row = next(self._rows, None)
            if row is None:
                return None
            item = self._make(row).item
            if item is not None:
                kept, num_dropped = [*kept, item], 0
                continue
            num_dropped += 1
            if num_dropped == MOST_DROPPED:
                raise DataError(f"{row.location}: {num_dropped} prompts in a row do not fit - see prompts.max_length")
        self._check(kept)
        return kept


def rows_of(given: Iterable[GivenPrompt], fitting: FittingSection) -> Iterator[Row]:
    """Yield prompts as rows, with their columns named as `fitting` says.

    Raises:
        DataError: a single prompt or a table was given, or an item is not a prompt; says which.
    """
    return in_our_names(_rows(several(given)), **fitting.naming)


def _rows(given: Iterable[object]) -> Iterator[Row]:
    for number, prompt in enumerate(given, start=1):
        location = f"prompt {number}"
        if isinstance(prompt, Mapping):
            yield Row(dict(prompt), location)
        elif isinstance(prompt, str | list):
            yield Row({"prompt": prompt}, location)
        else:
            raise DataError(
                f"{location}: expected text, a list of messages, or a mapping with prompt, found "
                f"{type(prompt).__name__}"
            )


def several(given: object) -> Iterable[Any]:
    """Return what was given, if it can be iterated prompt by prompt.

    Raises:
        DataError: it is a single prompt, a table (which yields its column names), or not iterable.
    """
    if isinstance(given, str | Mapping) or hasattr(given, "iloc") or not isinstance(given, Iterable):
        raise DataError(
            f"prompts: expected a list of texts, messages or mappings, found {type(given).__name__} - put a single "
            "prompt into a list, and turn a table into its rows"
        )
    return given


class PromptOrder:
    """An endless reproducible order of prompts: a permutation per epoch. The batch depends on the step alone."""

    def __init__(self, num_prompts: int, batch_size: int, seed: int) -> None:
        self._num_prompts = num_prompts
        self._batch_size = batch_size
        self._seed = seed

    def batch(self, step: int) -> list[int]:
        """Return the prompts of PPO step `step`; a batch may cross the end of an epoch."""
        first = step * self._batch_size
        return [self._prompt(place) for place in range(first, first + self._batch_size)]

    def _prompt(self, place: int) -> int:
        epoch, offset = divmod(place, self._num_prompts)
        return _permutation(self._num_prompts, self._seed, epoch)[offset]


@lru_cache(maxsize=2)
def _permutation(num_prompts: int, seed: int, epoch: int) -> tuple[int, ...]:
    order = list(range(num_prompts))
    random.Random(f"prompts-{seed}-{epoch}").shuffle(order)  # noqa: S311  # reproducible order, not a secret
    return tuple(order)

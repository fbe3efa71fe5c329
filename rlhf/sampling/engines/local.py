"""The engines of this process: they draw from the modules that are trained, so there is nothing to load."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlhf.batches import PromptBatch, Samples
from rlhf.sampling.batched import Decoding, sample_in_batches
from rlhf.sampling.endings import OnOver
from rlhf.sampling.engines.generated import sample_by_generate
from rlhf.sampling.engines.protocol import Weights


class LocalEngine:
    """Our own decoder; or transformers' `generate`, where it is asked for or the decoder does not know the model."""

    is_exact = True

    def __init__(
        self, model: Callable[..., Any], *, generates: bool = False, on_drawn: Callable[[int], None] | None = None
    ) -> None:
        """Take the model that is trained; `generates` asks for transformers' `generate`.

        `on_drawn` is told after each batch how many responses it had.
        """
        self.version = 0
        self._model = model
        self._sampler = sample_by_generate if generates else None
        self._on_drawn = on_drawn

    def load(self, weights: Weights, version: int) -> None:
        """Note the version: the model holds the weights already."""
        del weights
        self.version = version

    def sample(
        self,
        prompts: PromptBatch,
        decoding: Decoding,
        generator: torch.Generator,
        num_forced: Tensor | None = None,
        on_over: OnOver | None = None,
    ) -> Samples:
        """Draw one response to each prompt, `decoding.batch_rows` prompts at a time."""
        return sample_in_batches(
            self._model,
            prompts,
            decoding,
            generator,
            num_forced,
            sampler=self._sampler,
            on_drawn=self._on_drawn,
            on_over=on_over,
        )

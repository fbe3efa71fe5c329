"""A tiny language: every response can be listed, and each has a score."""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from rlhf.oracle.process import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyLanguage:
    """A vocabulary whose last token is EOS; a response ends with it or at the horizon. A state is a prefix."""

    vocabulary: int
    """Tokens, EOS included."""
    horizon: int
    """Longest response, in tokens."""
    prefixes: tuple[tuple[int, ...], ...]
    """What was said so far in each state, shortest first; state 0 is the empty prefix."""
    process: Process
    """Begins at the empty prefix; its reward is the score of the response, on its last token."""

    @property
    def eos(self) -> int:
        """The token that ends a response."""
        return self.vocabulary - 1

    def beginning_at(self, probabilities: dict[tuple[int, ...], float]) -> Process:
        """Return the process with resets: its episodes begin at prefixes with these probabilities."""
        start = torch.zeros_like(self.process.start)
        for prefix, probability in probabilities.items():
            start[self.prefixes.index(prefix)] = probability
        return Process(start=start, transitions=self.process.transitions, rewards=self.process.rewards)


def tiny_language(vocabulary: int, horizon: int, generator: torch.Generator) -> TinyLanguage:
    """Build a language with a standard normal score for each response.

    Args:
        vocabulary: tokens, EOS included.
        horizon: longest response, in tokens.
        generator: draws the scores.
    """
    words = range(vocabulary - 1)
    prefixes = [prefix for length in range(horizon) for prefix in product(words, repeat=length)]
    place = {prefix: index for index, prefix in enumerate(prefixes)}
    transitions = torch.zeros(len(prefixes), vocabulary, len(prefixes), dtype=torch.float64)
    for prefix, state in place.items():
        for word in words:
            if (longer := (*prefix, word)) in place:
                transitions[state, word, place[longer]] = 1.0
    scores = torch.randn(len(prefixes), vocabulary, dtype=torch.float64, generator=generator)
    rewards = torch.where(transitions.sum(-1) == 0, scores, 0.0)
    process = Process(start=_only_first(len(prefixes)), transitions=transitions, rewards=rewards)
    return TinyLanguage(vocabulary=vocabulary, horizon=horizon, prefixes=tuple(prefixes), process=process)


def _only_first(num_states: int) -> Tensor:
    start = torch.zeros(num_states, dtype=torch.float64)
    start[0] = 1.0
    return start

"""Which rows of a batch are over, and how long their responses are: kept on the device, looked at now and then."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlhf.batches import sent
from rlhf.sampling.stopping import StopRule

OnOver = Callable[[int, list[int]], None]
"""Told of a response as soon as it is seen to be over: its row, and the tokens that were drawn."""
LOOK_EVERY = 8
"""Decode steps between two looks on a GPU: a look waits until the device has finished, and a row that is over costs
little there. On a CPU every step is looked at."""


class Endings:
    """Lengths of responses. A token ends a row on the device at once, a text when the host looks."""

    def __init__(
        self,
        stop_rule: StopRule,
        limits: Tensor,
        before: Sequence[Sequence[int]] | None,
        on_over: OnOver | None = None,
    ) -> None:
        """Begin with rows of which none is over.

        Args:
            stop_rule: what ends a response.
            limits: [B] int64, how many tokens each row may write.
            before: row by row, tokens of the response that come before those; None for none.
            on_over: told of each row, once.
        """
        self.lengths = limits.clone()
        """[B] int64."""
        self.ended = torch.zeros_like(limits, dtype=torch.bool)
        """[B] bool, True where a token or a text ended the response."""
        self._stop_rule = stop_rule
        self._limits = limits
        self._most = limits.tolist()
        self._before = before
        self._every = LOOK_EVERY if limits.device.type == "cuda" else 1
        self._num_searched = 0  # steps whose texts were searched
        self._on_over = on_over
        self._told: set[int] = set()

    def add(self, rows: Tensor, ids: Tensor, step: int) -> None:
        """Note the tokens `ids` [N] that the rows [N] wrote at a step; nobody waits."""
        is_open = ~(self.ended[rows] | (self._limits[rows] <= step))
        now = self._stop_rule.by_token(ids) & is_open
        self.lengths[rows] = torch.where(now, step + 1, self.lengths[rows])
        self.ended[rows] |= now

    def is_time(self, num_done: int) -> bool:
        """Whether to look after so many steps."""
        return num_done % self._every == 0 or num_done >= max(self._most)

    def look(self, held: Sequence[int], rows: Tensor, response_ids: Tensor, num_done: int) -> list[bool]:
        """Return of each row [N] whether it is over after so many steps, and search the texts since the last look.

        Args:
            held: the rows that the decoder holds, as the host knows them.
            rows: the same on the device.
            response_ids: [B, T] int64 tokens so far, of all rows.
            num_done: steps that were done.
        """
        columns = [self.ended[rows, None], self.lengths[rows, None]]
        if self._stop_rule.reads_text:
            columns.append(response_ids[rows, :num_done])
        found = torch.cat(columns, dim=1).tolist()  # the one wait of a look
        texts: dict[int, int] = {}
        over = []
        for row, (ended, length, *ids) in zip(held, found, strict=True):
            at = self._text_end(row, ids, min(length, num_done)) if self._stop_rule.reads_text else None
            if at is not None:
                texts[row] = at
            over.append(bool(ended) or at is not None or self._most[row] <= num_done)
        self._num_searched = num_done
        self._note(texts)
        self._tell([row for row, is_over in zip(held, over, strict=True) if is_over], response_ids)
        return over

    def _text_end(self, row: int, ids: Sequence[int], length: int) -> int | None:
        """Return how many tokens complete a stop string, None where none is complete."""
        before = [] if self._before is None else self._before[row]
        for size in range(self._num_searched + 1, length + 1):
            if self._stop_rule.by_text([*before, *ids[:size]]):
                return size
        return None

    def _tell(self, over: Sequence[int], response_ids: Tensor) -> None:
        """Tell of rows that are over; where somebody listens, the host reads them once more."""
        new = [row for row in over if row not in self._told]
        if self._on_over is None or not new:
            return
        self._told.update(new)
        rows = sent(torch.tensor(new), self.lengths.device)
        for row, ids, length in zip(new, response_ids[rows].tolist(), self.lengths[rows].tolist(), strict=True):
            self._on_over(row, ids[:length])

    def _note(self, lengths: dict[int, int]) -> None:
        if lengths:
            device = self.lengths.device
            rows, sizes = (sent(torch.tensor(list(part)), device) for part in (lengths.keys(), lengths.values()))
            self.lengths[rows], self.ended[rows] = sizes, True

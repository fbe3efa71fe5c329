"""Five disjoint parts of the reviews, by hash, and the pieces of each."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from rlhf.fetch.sentences import MIN_TELLING_WORDS, all_pieces, normalised, opening_and_closing

PART_SHARES = {"A": 0.30, "B": 0.35, "C": 0.25, "D": 0.05, "E": 0.05}
"""A language and demonstrations, B gold labels, C preferences, D held-out prompts, E prompts for model selection."""
PROMPT_WORDS = 4
EVAL_SHARES = {"A": 0.04, "B": 0.10, "C": 0.10}
"""Share of a part's reviews that is kept for its evaluation file."""


@dataclass(frozen=True, kw_only=True)
class Review:
    """One review with its author's verdict."""

    key: str
    """sha256 of the normalised text, in hexadecimal."""
    label: int
    """1 when the author liked the film, else 0."""
    sentences: tuple[str, ...]

    @property
    def fraction(self) -> float:
        """A number in [0, 1) that decides the review's part."""
        return int(self.key[:8], 16) / 16**8

    @cached_property
    def part(self) -> str:
        """The part (A to E) that the review belongs to."""
        edge, fraction = 0.0, self.fraction
        for part, share in PART_SHARES.items():
            edge += share
            if fraction < edge:
                return part
        return "E"

    @property
    def is_for_evaluation(self) -> bool:
        """True for a share of each part, by other digits than those that choose the part."""
        return int(self.key[8:16], 16) / 16**8 < EVAL_SHARES.get(self.part, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A run of whole sentences of one review."""

    text: str
    review: Review
    place: int
    """0 for a piece from the first half of its review's pieces, 1 for one from the second half."""

    @property
    def order(self) -> str:
        """A hash to sort by: the same on every machine, and unrelated to the content."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def prompt(self) -> str:
        """The first words."""
        return " ".join(self.text.split()[:PROMPT_WORDS])

    @property
    def completion(self) -> str:
        """What follows the prompt, with the space between."""
        return self.text[len(self.prompt) :]


def cut_into_pieces(reviews: Sequence[Review]) -> dict[str, list[Piece]]:
    """Return the pieces of each part, ordered by hash: no piece twice, no telling sentence in two parts."""
    barred = _sentences_of_two_parts(reviews)
    pieces: dict[str, list[Piece]] = {part: [] for part in PART_SHARES}
    seen: set[str] = set()
    for review in sorted(reviews, key=lambda review: (review.part, review.key)):
        texts = all_pieces(review.sentences, barred)
        for index, text in enumerate(texts):
            if normalised(text) not in seen:
                seen.add(normalised(text))
                pieces[review.part].append(Piece(text=text, review=review, place=int(2 * index >= len(texts))))
    return {part: sorted(found, key=lambda piece: piece.order) for part, found in pieces.items()}


def _sentences_of_two_parts(reviews: Sequence[Review]) -> set[str]:
    owner: dict[str, str] = {}
    barred: set[str] = set()
    for review in reviews:
        for sentence in review.sentences:
            words = normalised(sentence)
            if words.count(" ") + 1 >= MIN_TELLING_WORDS and owner.setdefault(words, review.part) != review.part:
                barred.add(words)
    return barred


def openings_and_closings(pieces: Sequence[Piece]) -> list[Piece]:
    """Keep the first and the last piece of each review."""
    by_review: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        by_review[piece.review.key].append(piece)
    kept: list[Piece] = []
    for found in by_review.values():
        in_order = {piece.text: piece for piece in found}
        whole = " ".join(found[0].review.sentences)
        texts = opening_and_closing(sorted(in_order, key=whole.index))
        kept.extend(in_order[text] for text in texts)
    return sorted(kept, key=lambda piece: piece.order)

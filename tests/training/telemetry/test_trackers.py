"""Trackers get the numbers of a run, and its samples as tables."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rlhf.training.telemetry.trackers import COLUMNS, Trackers


def test_without_a_tracker_nothing_happens(tmp_path: Path) -> None:
    trackers = Trackers(SimpleNamespace(log_with=[]), tmp_path / "events", project="rlhf", config={})  # type: ignore[arg-type]
    trackers.log(1, {"loss": 1.0})
    trackers.close()
    assert not (tmp_path / "events").exists()


def test_tensorboard_holds_the_finite_numbers_and_the_accelerator_stays_usable(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accelerator = accelerate.Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path)
    for first_step, steps in ((1, (1, 2, 3)), (3, (3, 4))):
        trackers = Trackers(
            accelerator,
            tmp_path / "events",
            project="rlhf",
            config={"ppo": {"kl_coef": 0.1, "rewards": ["a"], "seed": None}},
            first_step=first_step,
        )
        for step in steps:
            trackers.log(step, {"loss": 10.0 * first_step + step, "kl": float("nan"), "stage": "ppo"})
        trackers.close()
        assert accelerator.trackers == []  # the next stage starts its own
    events = EventAccumulator(str(tmp_path / "events" / "rlhf"))
    events.Reload()
    assert events.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (1, 11.0),
        (2, 12.0),
        (3, 33.0),
        (4, 34.0),
    ]
    assert accelerator.gather(torch.ones(2)).sum() == 2


ROWS = [
    {
        "prompt": "Say",
        "response": " a|b\n<b>*x*</b> \x1b[2J\u202e",
        "score": 0.5,
        "kl": 1.5,
        "tokens": 3,
        "ended": True,
    },
    {"prompt": [{"role": "user", "content": "Hi"}], "response": "Ho", "score": None, "kl": 0.1, "tokens": 1},
]
PLAIN = [
    ["Say", " a|b\n<b>*x*</b> [2J", 0.5, 1.5, 3, True],
    ["user: Hi", "Ho", None, 0.1, 1, None],
]


def active(tracker: object, *, is_main: bool = True) -> Trackers:
    """Trackers around one that was started elsewhere."""
    accelerator = SimpleNamespace(log_with=[], trackers=[tracker], is_main_process=is_main)
    trackers = Trackers(accelerator, Path("nowhere"), project="rlhf", config={})  # type: ignore[arg-type]
    trackers._is_active = True
    return trackers


def test_tensorboard_shows_samples_as_a_table_whose_cells_stay_text(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accelerator = accelerate.Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path)
    trackers = Trackers(accelerator, tmp_path / "events", project="rlhf", config={})
    trackers.log_samples(20, ROWS)
    trackers.log_samples(21, [])
    trackers.close()
    events = EventAccumulator(str(tmp_path / "events" / "rlhf"))
    events.Reload()
    (event,) = events.Tensors("samples/text_summary")
    assert event.step == 20
    assert event.tensor_proto.string_val[0].decode().splitlines() == [
        "| prompt | response | score | kl | tokens | ended |",
        "| --- | --- | --- | --- | --- | --- |",
        r"| Say | a\|b &lt;b&gt;\*x\*&lt;/b&gt; [2J | 0.5 | 1.5 | 3 | True |",
        "| user: Hi | Ho |  | 0.1 | 1 |  |",
    ]


def test_wandb_gets_a_table_of_its_own() -> None:
    sent = []
    tracker = SimpleNamespace(name="wandb", log_table=lambda name, **table: sent.append((name, table)))
    active(tracker).log_samples(20, ROWS)
    assert sent == [("samples", {"columns": list(COLUMNS), "data": PLAIN, "step": 20})]


def test_trackio_gets_a_table_whose_text_is_no_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(Table=lambda **table: table))
    active(SimpleNamespace(name="trackio", log=lambda values, step: sent.append((values, step)))).log_samples(20, ROWS)
    ((values, step),) = sent
    assert step == 20 and list(values) == ["samples"]
    assert values["samples"]["columns"] == list(COLUMNS)
    assert values["samples"]["data"][0] == ["Say", r"a\|b &lt;b&gt;\*x\*&lt;/b&gt; [2J", 0.5, 1.5, 3, True]


def test_a_tracker_without_tables_and_other_processes_send_no_samples() -> None:
    active(SimpleNamespace(name="mlflow")).log_samples(20, ROWS)
    active(SimpleNamespace(name="wandb"), is_main=False).log_samples(20, ROWS)

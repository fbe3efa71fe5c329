"""Tests of rlhf.reachable, and of those that ask it before they load from the hub."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest
from huggingface_hub import constants

from rlhf import reachable
from rlhf.data.reading.rows import read_rows
from rlhf.errors import ConfigError, DataError
from rlhf.models.pretrained import directory
from rlhf.models.pretrained.loading import load_causal_lm
from rlhf.models.pretrained.tokenizer import load_tokenizer

WAITS = "does not answer; waiting for it before its cache is read - HF_HUB_OFFLINE=1 reads it at once"


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes connections and never answers; it may be asked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(reachable, "SECONDS", 0.2)
        yield


@pytest.mark.usefixtures("silent_hub")
@pytest.mark.parametrize("load", [load_causal_lm, load_tokenizer])
def test_a_hub_name_is_refused_at_once_where_the_hub_does_not_answer(load: object) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load("somebody/a-model")  # type: ignore[operator]
    assert time.monotonic() - started < 5.0
    assert str(caught.value) == (
        f"somebody/a-model: no such directory, and {constants.ENDPOINT} does not answer - give a local directory or "
        "fetch:NAME"
    )


@pytest.mark.usefixtures("silent_hub")
def test_of_what_the_cache_holds_it_is_said_how_to_load_it_without_waiting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(directory, "try_to_load_from_cache", lambda path, name: f"/cache/{name}")
    directory.check_directory("somebody/a-model")
    assert WAITS in capsys.readouterr().err


@pytest.mark.usefixtures("silent_hub")
def test_a_data_set_is_refused_at_once_where_the_hub_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **more: pytest.fail("its library waits for 48 s"))
    with pytest.raises(DataError) as caught:
        read_rows("somebody/rows")
    assert str(caught.value) == (
        f"somebody/rows: no such file or directory, and {constants.ENDPOINT} does not answer - give a local file or "
        "directory"
    )


@pytest.mark.usefixtures("silent_hub")
def test_of_a_data_set_that_the_cache_holds_it_is_said_how_to_load_it_without_waiting(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    (tmp_path / "somebody___rows" / "default" / "0.0.0" / "abc").mkdir(parents=True)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, split: [{"prompt": name}])
    assert [row.values for row in read_rows("somebody/rows")] == [{"prompt": "somebody/rows"}]
    assert WAITS in capsys.readouterr().err


@pytest.mark.usefixtures("silent_hub")
def test_a_directory_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachable, "_answers", lambda endpoint: pytest.fail("the hub was asked"))
    directory.check_directory(str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    directory.check_directory("somebody/a-model")

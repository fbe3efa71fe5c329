"""Tests of rlhf.models.pretrained.hub: uploads to a fake hub, and what goes wrong with them."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from rlhf.errors import ConfigError, HubError
from rlhf.models.pretrained import hub

SECRET = "hf_abcDEF123"


def upload(directory: Path) -> str:
    return hub.upload(directory, "me/model", private=True, message="Upload policy", kept="all is here")


def test_a_model_is_uploaded_to_a_repository_that_is_made_for_it(tmp_path: Path, fake_hub: Any) -> None:
    (tmp_path / "model.safetensors").write_text("weights")
    assert upload(tmp_path) == "https://hub.example/me/model"
    assert fake_hub.made == [{"repo_id": "me/model", "private": True, "exist_ok": True}]
    (sent,) = fake_hub.uploaded
    assert sent == {"repo_id": "me/model", "files": ["model.safetensors"], "commit_message": "Upload policy"}


@pytest.mark.parametrize("error", [OSError, ValueError, RuntimeError])
def test_what_goes_wrong_is_one_line_without_the_token(
    tmp_path: Path, fake_hub: Any, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "a-token-of-another-form")
    fake_hub.error = error(f"\n\n  403 for {SECRET}, Authorization: Bearer x.y.z and a-token-of-another-form\nmore\n")
    with pytest.raises(HubError) as refused:
        upload(tmp_path)
    assert str(refused.value) == "push_to_hub: me/model: 403 for ..., Authorization: ... and ... - all is here"
    assert refused.value.exit_status == 4
    assert refused.value.__suppress_context__


def test_a_hub_that_cannot_be_reached_is_one_line_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setattr(hub, "HfApi", lambda: hub_at(f"http://127.0.0.1:{port}"))
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(HubError, match=r"^push_to_hub: me/model: .+ - all is here$") as refused:
        upload(tmp_path)
    assert SECRET not in str(refused.value)


def hub_at(endpoint: str) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint)


def test_a_run_that_could_not_upload_is_refused_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "get_token", lambda: None)
    with pytest.raises(ConfigError, match="no access token - log in with `hf auth login`, or set HF_TOKEN"):
        hub.check_hub()
    monkeypatch.setattr(hub, "get_token", lambda: SECRET)
    hub.check_hub()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        hub.check_hub()


def test_the_base_of_an_adapter_is_named_if_it_is_only_here(tmp_path: Path) -> None:
    assert hub.base_elsewhere(tmp_path) is None
    for base, expected in (("someone/model", None), (str(tmp_path), str(tmp_path)), (None, None)):
        (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
        assert hub.base_elsewhere(tmp_path) == expected

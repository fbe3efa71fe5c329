"""A saved model uploaded to the Hugging Face hub, and everything that may go wrong with it as one line."""

import os
import re
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError

from rlhf.errors import ConfigError, HubError
from rlhf.models.pretrained.directory import read_object

_TOKEN = re.compile(r"\bhf_\w+|(?i:bearer)\s+\S+")
"""What an access token looks like in a message."""
_WAYS = "log in with `hf auth login`, or set HF_TOKEN"


def check_hub() -> None:
    """Refuse a run that could not upload at its end.

    Raises:
        ConfigError: the hub is switched off, or there is no access token.
    """
    if constants.HF_HUB_OFFLINE:
        raise ConfigError("push_to_hub: HF_HUB_OFFLINE is set - unset it, or leave push_to_hub out")
    if get_token() is None:
        raise ConfigError(f"push_to_hub: there is no access token - {_WAYS}")


def upload(directory: Path, repo: str, *, private: bool | None, message: str, kept: str) -> str:
    """Upload a model's directory, to a repository that is made if there is none; call it on one process only.

    Args:
        directory: as `save_model` wrote it.
        repo: `user/name`, or a name of one's own.
        private: whether a new repository is; None leaves it to its owner's default.
        message: of the commit.
        kept: end of the error message: what is not lost.

    Returns:
        The address of the model.

    Raises:
        HubError: the hub refused, or cannot be reached.
    """
    hub = HfApi()
    try:
        made = hub.create_repo(repo, private=private, exist_ok=True)
        hub.upload_folder(repo_id=made.repo_id, folder_path=directory, commit_message=message)
    except Exception as error:  # the library that sends the requests, and with it the errors, changes with the version
        raise HubError(f"push_to_hub: {repo}: {_reason(error)} - {kept}") from None
    return str(made)


def base_elsewhere(directory: Path) -> str | None:
    """Return the base of a saved adapter if it is a directory of this machine, which nobody else has."""
    base = read_object(directory / "adapter_config.json").get("base_model_name_or_path")
    return str(base) if base and Path(base).is_dir() else None


def _reason(error: Exception) -> str:
    """Return the first line of an error, and the way out where it is the token; never the token itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    for secret in (get_token(), os.environ.get("HF_TOKEN")):
        text = text.replace(secret, "...") if secret else text
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    refused = f" ({_WAYS} of a token that may write there)" if status in (401, 403) else ""
    return f"{_TOKEN.sub('...', text)[:300]}{refused}"

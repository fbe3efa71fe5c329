"""A Hugging Face hub without a network: what is uploaded to it, and what it refuses."""

from pathlib import Path
from typing import Any


class Made(str):
    """The address of a repository, with its name, as `create_repo` returns it."""

    repo_id: str


class FakeHub:
    """Stands for `HfApi`."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []
        self.uploaded: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def __call__(self) -> "FakeHub":
        return self

    def create_repo(self, repo_id: str, **options: Any) -> Made:
        if self.error is not None:
            raise self.error
        self.made.append({"repo_id": repo_id, **options})
        made = Made(f"https://hub.example/{repo_id}")
        made.repo_id = repo_id
        return made

    def upload_folder(self, *, folder_path: Path, **options: Any) -> None:
        files = sorted(path.name for path in Path(folder_path).iterdir())
        self.uploaded.append({**options, "files": files})

"""Answers of a judge kept on the disk by what it was asked, so that no question is asked twice."""

import json
from pathlib import Path

from rlhf.errors import CheckpointError
from rlhf.training.storage.atomic import write_output
from rlhf.training.storage.fingerprint import json_digest
from rlhf.training.storage.manifest import JSON


class AnswerCache:
    """One small file for each question."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`, which is made when the first answer is kept."""
        self._directory = directory

    def recall(self, question: JSON) -> str | None:
        """Return the answer to a question that was asked before; None where there is none, or its file is broken."""
        try:
            found = json.loads(self._place(question).read_text(encoding="utf-8"))["answer"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, str) else None

    def keep(self, question: JSON, answer: str) -> None:
        """Keep an answer; a disk that cannot be written is no failure of the judge."""
        try:
            write_output(self._place(question), json.dumps({"question": question, "answer": answer}))
        except CheckpointError:
            return

    def _place(self, question: JSON) -> Path:
        digest = json_digest(question)
        return self._directory / digest[:2] / f"{digest}.json"

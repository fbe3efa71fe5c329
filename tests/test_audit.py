"""Known weaknesses of pinned packages fail the check with their ids; an index that does not answer fails nothing."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

CLEAN = {"name": "a", "version": "1", "vulns": []}
WEAK = {
    "name": "b",
    "version": "2",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-2026-1"], "fix_versions": ["2.1"]}],
}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.fixture
def audit(module: Callable[[Path], ModuleType], root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The script, with an index that answers `audit.answers(...)`, and three pins."""
    script: Any = module(root / ".ci" / "security" / "audit.py")
    (tmp_path / "constraints.txt").write_text("# the versions\na==1\nb==2\nc==3\n")
    (tmp_path / "ignored.toml").write_text("")
    monkeypatch.setattr(script, "PINS", tmp_path / "constraints.txt")
    monkeypatch.setattr(script, "IGNORED", tmp_path / "ignored.toml")
    script.questions = []

    def answers(*packages: dict[str, Any], error: str = "") -> None:
        out = json.dumps({"dependencies": packages}) if packages else ""

        def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
            script.questions.append(Path(arguments[1]).read_text().split())
            return subprocess.CompletedProcess(arguments, 1, out, error)

        monkeypatch.setattr(script, "run", run)

    script.answers = answers
    return script


def test_a_known_weakness_fails_with_its_ids(audit: Any, capsys: pytest.CaptureFixture[str]) -> None:
    audit.answers(CLEAN, WEAK, UNKNOWN)
    assert audit.main() == 1
    said = capsys.readouterr().out
    assert "b 2: PYSEC-1 = CVE-2026-1; mended in 2.1" in said
    assert "2 packages audited, 1 unknown to the index" in said
    assert audit.questions[-1] == ["a==1", "b==2", "c==3"]


@pytest.mark.parametrize("name", ["PYSEC-1", "CVE-2026-1"])
def test_a_weakness_with_a_reason_passes_and_without_one_does_not(audit: Any, name: str) -> None:
    audit.answers(CLEAN, WEAK)
    audit.IGNORED.write_text(f'[{name}]\nreason = "never called"\n')
    assert audit.main() == 0
    audit.IGNORED.write_text(f'[{name}]\nreason = ""\n')
    assert audit.main() == 1


@pytest.mark.parametrize(
    ("packages", "error", "said"),
    [
        ((UNKNOWN,), "", "nothing was audited: the index does not answer about c"),
        ((), "Traceback\nConnectionError: no route", "nothing was audited: ConnectionError: no route"),
        ((), "", "nothing was audited: no output"),
    ],
)
def test_an_index_that_does_not_answer_is_one_line_after_one_question(
    audit: Any, packages: tuple[dict[str, Any], ...], error: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    audit.answers(*packages, error=error)
    assert audit.main() == 0
    assert capsys.readouterr().out == f"pip-audit: {said}\n"
    assert audit.questions == [["a==1"]]


def test_the_lock_has_a_hash_of_every_pinned_version_but_torch(
    module: Callable[[Path], ModuleType], root: Path
) -> None:
    script = module(root / ".ci" / "security" / "lock.py")
    lines = [line for line in (root / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert [line.partition(" ")[0] for line in lines] == script.pins()
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    assert not [line for line in lines if line.startswith("torch==")] and len(lines) > 100

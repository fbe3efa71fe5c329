"""Every call that loads a model or a tokenizer says what it trusts: read from the source of the package."""

import ast
from pathlib import Path

import pytest

import rlhf

SOURCES = sorted(Path(rlhf.__file__).parent.rglob("*.py"))
WEIGHTS = ("AutoModel", "kind", "PreTrainedModel")
"""How the names begin whose `from_pretrained` reads weights."""


UNSAFE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
"""Packages whose files hold code."""


def _calls(text: str, name: str) -> list[tuple[str, dict[str, ast.expr]]]:
    """Return on what a method of this name is called, and the keywords that are written out."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name:
            found.append((ast.unparse(node.func.value), {each.arg: each.value for each in node.keywords if each.arg}))
    return found


def _fault(owner: str, keywords: dict[str, ast.expr]) -> str | None:
    if owner in ("PeftModel", "PeftConfig"):  # they take neither; `check_directory` refuses adapters in pickle before
        return None
    if "trust_remote_code" not in keywords:
        return "trust_remote_code is not explicit"
    safe = keywords.get("use_safetensors")
    reads_weights = owner.startswith(WEIGHTS) and "gguf_file" not in keywords
    if reads_weights and not (isinstance(safe, ast.Constant) and safe.value is True):
        return "use_safetensors=True is missing"
    return None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SOURCES[0].parent)))
def test_every_load_says_that_it_reads_safetensors_and_whose_code_it_runs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    faults = [(owner, _fault(owner, given)) for owner, given in _calls(text, "from_pretrained")]
    assert [each for each in faults if each[1]] == []
    for owner, given in _calls(text, "from_config"):
        assert "trust_remote_code" in given, owner
    assert not [owner for owner, _ in _calls(text, "load") if owner in ("torch", "pickle")]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(SOURCES[0].parent)))
def test_nothing_imports_what_runs_code_of_the_files_that_it_reads(path: Path) -> None:
    assert not _imported(path.read_text(encoding="utf-8")) & UNSAFE


def _imported(text: str) -> set[str]:
    """Return the packages that a module imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(text)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}}


def test_an_unsafe_import_is_found() -> None:
    assert _imported("def f():\n    import pickle.x\n    from joblib import load\n") >= {"pickle", "joblib"}


def test_the_calls_are_found() -> None:
    owners = [owner for path in SOURCES for owner, _ in _calls(path.read_text(encoding="utf-8"), "from_pretrained")]
    assert {"AutoTokenizer", "AutoConfig", "kind", "PeftModel", "AutoModelForSequenceClassification"} <= set(owners)
    for code in ("AutoModel.from_pretrained(x)", "AutoModel.from_pretrained(x, trust_remote_code=False)"):
        ((owner, given),) = _calls(code, "from_pretrained")
        assert _fault(owner, given)

"""Every call that loads a model or a tokenizer says what it trusts: read from the source of the package."""

import ast
import functools
from pathlib import Path

import rlhf

PACKAGE = Path(rlhf.__file__).parent
SOURCES = {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
"""The text of each module."""
WEIGHTS = ("AutoModel", "kind", "PreTrainedModel")
"""How the names begin whose `from_pretrained` reads weights."""


UNSAFE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
"""Packages whose files hold code."""


@functools.cache
def _nodes(text: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(text)))


def _calls(text: str, name: str) -> list[tuple[str, dict[str, ast.expr]]]:
    """Return on what a method of this name is called, and the keywords that are written out."""
    found = []
    for node in _nodes(text) if f".{name}" in text else []:
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


def _faults(text: str) -> list[str]:
    """Return what is wrong with the loads of a module."""
    faults = [
        f"{owner}: {fault}" for owner, given in _calls(text, "from_pretrained") if (fault := _fault(owner, given))
    ]
    for owner, given in _calls(text, "from_config"):
        faults += [] if "trust_remote_code" in given else [f"{owner}: trust_remote_code is not explicit"]
    return faults + [f"{owner}.load" for owner, _ in _calls(text, "load") if owner in ("torch", "pickle")]


def test_every_load_says_that_it_reads_safetensors_and_whose_code_it_runs() -> None:
    assert len(SOURCES) > 400
    assert {name: faults for name, text in SOURCES.items() if (faults := _faults(text))} == {}


def test_nothing_imports_what_runs_code_of_the_files_that_it_reads() -> None:
    named = {name: text for name, text in SOURCES.items() if any(package in text for package in UNSAFE)}
    assert named  # comments and messages name some
    assert {name: found for name, text in named.items() if (found := _imported(text) & UNSAFE)} == {}


def _imported(text: str) -> set[str]:
    """Return the packages that a module imports, wherever in it."""
    nodes = _nodes(text)
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.partition(".")[0] for name in plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}}


def test_an_unsafe_import_is_found() -> None:
    assert _imported("def f():\n    import pickle.x\n    from joblib import load\n") >= {"pickle", "joblib"}


def test_the_calls_are_found() -> None:
    owners = [owner for text in SOURCES.values() for owner, _ in _calls(text, "from_pretrained")]
    assert {"AutoTokenizer", "AutoConfig", "kind", "PeftModel", "AutoModelForSequenceClassification"} <= set(owners)
    for code in ("AutoModel.from_pretrained(x)", "AutoModel.from_pretrained(x, trust_remote_code=False)"):
        ((owner, given),) = _calls(code, "from_pretrained")
        assert _fault(owner, given) and _faults(code)
    assert _faults("AutoModel.from_config(x)") and _faults("torch.load(x)")

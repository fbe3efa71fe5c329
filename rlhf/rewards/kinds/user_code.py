"""User code as a reward: loads a function or class by name, and finds the line in which it failed.

Loading runs the code of its file: a path must come from the user's config, never from a dataset or a model.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

from rlhf.errors import ConfigError
from rlhf.printable import quoted


def load_callable(spec: str, where: str) -> tuple[Callable[..., object], str]:
    """Load what "path/to/file.py:name" or "package.module:name" names; a class is instantiated without arguments.

    Args:
        spec: file (from the current directory) or importable module, a colon, the name in it.
        where: names the reward in messages.

    Returns:
        The function or object, and the file that it comes from.

    Raises:
        ConfigError: nothing callable can be loaded from there.
    """
    module = _load_module(spec, where)
    return _load_function(module, spec.rpartition(":")[2], where), str(module.__file__)


def given_callable(given: Callable[..., object], where: str) -> tuple[Callable[..., object], str]:
    """Take a function or object already in memory; a class is instantiated without arguments.

    Returns:
        The function or object, and the file that it was written in, as tracebacks name it.

    Raises:
        ConfigError: the class cannot be instantiated, or has no `__call__`.
    """
    function = given
    if isinstance(given, type):
        file = getattr(sys.modules.get(given.__module__), "__file__", None) or "<interactive>"
        function = _instance(given, name_of(given), file, where)
    code = getattr(inspect.unwrap(function), "__code__", None) or getattr(type(function).__call__, "__code__", None)
    return function, "" if code is None else code.co_filename


def name_of(given: object) -> str:
    """Return the name of a function or class, or of an object's class."""
    return str(getattr(given, "__name__", type(given).__name__))


def one_line(error: BaseException, file: str, note: str = "") -> str:
    """Describe an exception with the line of the user's file that raised it; `note` comes before the line."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if frame.filename == file] or frames[-1:]
    place = f" ({note}{inside[-1].filename}, line {inside[-1].lineno}: {inside[-1].line})"
    text = quoted(str(error))[1:-1]
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


def _load_module(spec: str, where: str) -> ModuleType:
    source, colon, name = spec.rpartition(":")
    if not (colon and source and name.isidentifier()):
        raise ConfigError(f"{where}: expected path/to/file.py:name or package.module:name")
    is_file = source.endswith(".py") or "/" in source or "\\" in source
    path = Path(source).expanduser().resolve()
    if is_file and not path.is_file():
        raise ConfigError(f"{where}: no file {str(path)!r}")
    # Modules beside the file, or in the current directory, can be imported, as under `python file.py`.
    directory = str(path.parent if is_file else Path.cwd())
    if directory not in sys.path:
        sys.path.append(directory)
    try:
        return _run_file(path) if is_file else importlib.import_module(source)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and not is_file and f"{source}.".startswith(f"{error.name}."):
            raise ConfigError(f"{where}: no module {error.name!r}, looked in {directory!r} too") from error
        raise ConfigError(f"{where}: loading {source} raised {one_line(error, str(path))}") from error


def _run_file(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    # Two files of the same name are two modules. Dataclasses look their module up by name while the file runs.
    name = f"rlhf_reward_{path.stem}_{digest}"
    loader = SourceFileLoader(name, str(path))
    module = importlib.util.module_from_spec(ModuleSpec(name, loader, origin=str(path)))
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_function(module: ModuleType, name: str, where: str) -> Callable[..., object]:
    found: object = getattr(module, name, None)
    if not callable(found):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        own = [key for key in names if getattr(vars(module)[key], "__module__", None) == module.__name__]
        near = get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        problem = f"{name!r} is not callable" if hasattr(module, name) else f"no {name!r}"
        raise ConfigError(f"{where}: {problem} in {module.__file__}, which defines {sorted(own)}{hint}")
    return _instance(found, name, str(module.__file__), where) if isinstance(found, type) else found


def _instance(kind: type, name: str, file: str, where: str) -> Callable[..., object]:
    try:
        made: object = kind()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{where}: {name}() raised {one_line(error, file)}") from error
    if not callable(made):
        raise ConfigError(f"{where}: the class {name!r} in {file} has no __call__ method")
    return made

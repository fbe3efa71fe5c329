"""A Python function as the reward, with TRL's signature: fn(prompts, completions, **columns) -> list[float].

Loading it runs the code of its file: a path must come from the user's config, never from a dataset or a model.
Left out: TRL's `trainer_state`, `log_extra` and async functions.
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

from rlhf.errors import ConfigError, RewardError
from rlhf.rewards.checks import checked_scores, quoted
from rlhf.rewards.protocol import Episode

# TRL keeps these columns from a reward function, which has them under other names.
_NOT_COLUMNS = frozenset({"prompt", "completion", "prompts", "completions", "completion_ids"})


class FunctionReward:
    """A function or a callable class, named "path/to/file.py:name" or "package.module:name".

    It is called with keywords only: `prompts` and `completions`, every column that all episodes have, as lists, and
    `completion_ids` where the signature names it. A function without `**columns` gets the columns that it names. As in
    TRL, the completion of a conversation is a list with one assistant message.
    """

    def __init__(self, spec: str) -> None:
        """Load the function; a class is instantiated without arguments.

        Args:
            spec: file, from the current directory on, or importable module; a colon; the name in it.

        Raises:
            ConfigError: nothing callable can be loaded from there.
        """
        self._where = f"reward {spec!r}"
        module = _load_module(spec, self._where)
        self._file = str(module.__file__)
        self._function = _load_function(module, spec.rpartition(":")[2], self._where)
        self._parameters = _parameters(self._function)

    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Call the function once for all episodes.

        Raises:
            RewardError: the function raised (its exception is the cause), or gave something else than finite floats.
        """
        if not episodes:
            return []
        arguments = self._arguments(episodes)
        try:
            raw = self._function(**arguments)
        except (Exception, SystemExit) as error:
            raise RewardError(f"{self._where} raised {_one_line(error, self._file)}") from error
        return checked_scores(raw, len(episodes), self._where, [episode.prompt for episode in episodes])

    def close(self) -> None:
        """Call the `close` of the user's object where it has one."""
        close = getattr(self._function, "close", None)
        if callable(close):
            close()

    def _arguments(self, episodes: Sequence[Episode]) -> dict[str, list[object]]:
        arguments = _columns(episodes)
        columns = sorted(arguments)
        arguments["prompts"] = [_copy(episode.prompt) for episode in episodes]
        arguments["completions"] = [_completion(episode) for episode in episodes]
        if "completion_ids" in self._parameters:
            arguments["completion_ids"] = [list(episode.response_ids) for episode in episodes]
        kinds = {parameter.kind for parameter in self._parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            arguments = {name: values for name, values in arguments.items() if name in self._parameters}
        for name, parameter in self._parameters.items():
            is_named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if is_named and parameter.default is parameter.empty and name not in arguments:
                raise RewardError(
                    f"{self._where} needs the column {name!r}; the columns that every prompt has are {columns}"
                )
        return arguments


def _columns(episodes: Sequence[Episode]) -> dict[str, list[object]]:
    names = [name for name in episodes[0].columns if name not in _NOT_COLUMNS]
    shared = [name for name in names if all(name in episode.columns for episode in episodes)]
    return {name: [episode.columns[name] for episode in episodes] for name in shared}


def _copy(prompt: object) -> object:
    # The user's function may change its messages; the next reward must not see that.
    return [dict(message) for message in prompt] if isinstance(prompt, list) else prompt


def _completion(episode: Episode) -> object:
    if isinstance(episode.prompt, str):
        return episode.completion
    return [{"role": "assistant", "content": episode.completion}]


def _load_module(spec: str, where: str) -> ModuleType:
    source, colon, name = spec.rpartition(":")
    if not (colon and source and name.isidentifier()):
        raise ConfigError(f"{where}: expected path/to/file.py:name or package.module:name")
    is_file = source.endswith(".py") or "/" in source or "\\" in source
    path = Path(source).expanduser().resolve()
    if is_file and not path.is_file():
        raise ConfigError(f"{where}: no file {str(path)!r}")
    # What lies beside the file, or in the current directory, can be imported, as it is under `python file.py`.
    directory = str(path.parent if is_file else Path.cwd())
    if directory not in sys.path:
        sys.path.append(directory)
    try:
        return _run_file(path) if is_file else importlib.import_module(source)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and not is_file and f"{source}.".startswith(f"{error.name}."):
            raise ConfigError(f"{where}: no module {error.name!r}, looked in {directory!r} too") from error
        raise ConfigError(f"{where}: loading {source} raised {_one_line(error, str(path))}") from error


def _run_file(path: Path) -> ModuleType:
    digest = hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    # Two files of one name are two modules. Dataclasses look their module up by name while the file runs.
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
    if isinstance(found, type):
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{where}: {name}() raised {_one_line(error, str(module.__file__))}") from error
    if not callable(found):
        raise ConfigError(f"{where}: the class {name!r} in {module.__file__} has no __call__ method")
    if inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__):
        raise ConfigError(f"{where}: {name!r} is async; expected a plain function")
    return found


def _parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except ValueError:  # some builtins have no signature: hand them everything
        return {"columns": inspect.Parameter("columns", inspect.Parameter.VAR_KEYWORD)}


def _one_line(error: BaseException, file: str) -> str:
    """Name the exception and the line of the user's file in which it arose."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in frames if frame.filename == file] or frames[-1:]
    place = f" ({inside[-1].filename}, line {inside[-1].lineno}: {inside[-1].line})"
    text = quoted(str(error))[1:-1]
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"

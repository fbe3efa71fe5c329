"""A Python function as the reward, with TRL's signature: fn(prompts, completions, **columns) -> list[float | None].

Left out: TRL's `trainer_state`, `log_extra` and `log_metric`.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence

from rlhf.errors import RewardError
from rlhf.printable import quoted
from rlhf.rewards.answers import checked_answers
from rlhf.rewards.checks import BadScores, Problem
from rlhf.rewards.kinds.user_code import given_callable, load_callable, name_of, one_line
from rlhf.rewards.protocol import Episode, Score
from rlhf.rewards.token_scores import Ends

# TRL does not pass these columns to a reward function, which gets them under other names.
_NOT_COLUMNS = frozenset({"prompt", "completion", "prompts", "completions", "completion_ids"})


class FunctionReward:
    """A function or callable class, sync or async, as an object or as "path/to/file.py:name" or "package.module:name".

    It is called with keywords only: `prompts` and `completions`, every column that all episodes have, as lists, and
    `completion_ids` where the signature names it. A function without `**columns` gets the columns that it names. As in
    TRL, the completion of a conversation is a list with one assistant message, and None means that the reward does not
    apply to an episode. A list instead of a number holds token scores, see `token_scores`.
    """

    def __init__(self, given: str | Callable[..., object], *, ends: Ends | None = None) -> None:
        """Load the function; a class is instantiated without arguments.

        Args:
            given: file (from the current directory) or importable module, a colon, the name in it; or the function.
            ends: tells where tokens end, for functions that score spans of characters.

        Raises:
            ConfigError: nothing callable can be loaded from there.
        """
        if isinstance(given, str):
            self._where = f"reward {given!r}"
            self._function, self._file = load_callable(given, self._where)
        else:
            self._where = f"reward {name_of(given)!r}"
            self._function, self._file = given_callable(given, self._where)
        self._parameters = _parameters(self._function)
        self._ends = ends
        # One event loop for all calls: what a class opens in it (a session, a pool) stays open.
        self._loop = asyncio.Runner()

    def score(self, episodes: Sequence[Episode]) -> list[Score]:
        """Call the function once for all episodes; if that raises, once for each, to find which one caused it.

        Raises:
            BadScores: some scores are not finite numbers, or the function raised for some episodes only.
            RewardError: the function raised (its exception is the cause), or returned something that is not scores.
        """
        if not episodes:
            return []
        arguments = self._arguments(episodes)
        try:
            raw = self._called(arguments)
        except (Exception, SystemExit) as error:
            raise self._failure(error, episodes) from error
        return self._checked(raw, episodes)

    def close(self) -> None:
        """Call the `close` of the user's object, if it has one."""
        close = getattr(self._function, "close", None)
        if callable(close):
            closing = close()
            if inspect.isawaitable(closing):
                self._loop.run(_awaited(closing))
        self._loop.close()

    def _called(self, arguments: dict[str, list[object]]) -> object:
        raw = self._function(**arguments)
        return self._loop.run(_awaited(raw)) if inspect.isawaitable(raw) else raw

    def _checked(self, raw: object, episodes: Sequence[Episode], first: int = 0) -> list[Score]:
        return checked_answers(raw, episodes, self._where, ends=self._ends, first=first)

    def _failure(self, error: BaseException, episodes: Sequence[Episode]) -> RewardError:
        """Return the error for a call that raised: a `BadScores` if some episodes do not raise on their own."""
        if len(episodes) == 1:
            return RewardError(self._message(error, 0, episodes[0]))
        scores: list[Score] = []
        problems: dict[int, Problem] = {}
        for index, episode in enumerate(episodes):
            try:
                scores += self._checked(self._called(self._arguments([episode])), [episode], index)
            except BadScores as bad:
                scores.append(None)
                problems[index] = bad.problems[0]
            except (Exception, SystemExit) as own:
                scores.append(None)
                problems[index] = Problem(self._message(own, index, episode), is_number=False)
        if not problems:
            return RewardError(f"{self._where} raised {one_line(error, self._file, 'no prompt raises on its own; ')}")
        if len(problems) == len(episodes):
            return RewardError(problems[0].message)
        return BadScores(scores, problems)

    def _message(self, error: BaseException, index: int, episode: Episode) -> str:
        note = f"prompt {index}, {quoted(episode.prompt)}; "
        return f"{self._where} raised {one_line(error, self._file, note)}"

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
                    f"{self._where} needs the column {name!r}; the columns that every prompt has are {columns} - name "
                    "parameters as in f(prompts, completions, **columns): they are passed by name"
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


def _parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(function).parameters)
    except ValueError:  # some builtins have no signature: hand them everything
        return {"columns": inspect.Parameter("columns", inspect.Parameter.VAR_KEYWORD)}


async def _awaited(promise: Awaitable[object]) -> object:
    return await promise

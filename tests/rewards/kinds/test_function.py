import sys
import textwrap
import traceback
from dataclasses import replace

import pytest

from rlhf.errors import ConfigError, RewardError
from rlhf.rewards.checks import BadScores
from rlhf.rewards.kinds.function import FunctionReward
from rlhf.rewards.protocol import Episode, Reward


@pytest.fixture(autouse=True)
def unchanged_imports(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("rlhf_reward_", "package_of_test", "beside_the_reward")):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    """Write a file of Python and return "file:name"."""

    def write_file(code, name="score", file="my_rewards.py"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        return f"{path}:{name}"

    return write_file


def episode(prompt="How?", completion="So.", **columns):
    return Episode(prompt=prompt, completion=completion, columns=columns, prompt_ids=(5, 6), response_ids=(7, 8, 2))


def test_a_function_of_a_file_scores_prompts_and_completions(write):
    code = "def score(prompts, completions, **columns): return [10 * len(p) + len(completions[0]) for p in prompts]"
    reward: Reward = FunctionReward(write(code))
    assert reward.score([episode("abc", "x"), episode("", "xy")]) == [31.0, 1.0]
    reward.close()


def test_a_function_of_a_package_is_found_from_the_current_directory(write, tmp_path, monkeypatch):
    write("", file="package_of_test/__init__.py")
    write("def score(completions, **columns): return [2.5 for _ in completions]", file="package_of_test/rewards.py")
    monkeypatch.chdir(tmp_path)
    assert FunctionReward("package_of_test.rewards:score").score([episode()]) == [2.5]


def test_a_relative_path_is_taken_from_the_current_directory(write, tmp_path, monkeypatch):
    write("def score(completions, **columns): return [1.0]", file="inner/r.py")
    monkeypatch.chdir(tmp_path)
    assert FunctionReward("inner/r.py:score").score([episode()]) == [1.0]
    monkeypatch.chdir(tmp_path / "inner")
    assert FunctionReward("r.py:score").score([episode()]) == [1.0]


def test_columns_are_lists_and_only_those_that_every_episode_has(write):
    reward = FunctionReward(
        write(
            """
            seen = []
            class Record:
                def __call__(self, **arguments):
                    self.arguments = arguments
                    return [0.0] * len(arguments["prompts"])
                def close(self):
                    seen.append(self.arguments)
            """,
            "Record",
        )
    )
    rows = [
        replace(episode("p", "c"), columns={"answer": 1, "source": "a", "prompt": "p", "completions": "x"}),
        replace(episode("q", "d"), columns={"answer": None, "level": 3, "prompt": "q", "completions": "y"}),
    ]
    reward.score(rows)
    reward.close()
    (seen,) = (m.seen for n, m in sys.modules.items() if n.startswith("rlhf_reward_my_rewards"))
    assert seen == [{"prompts": ["p", "q"], "completions": ["c", "d"], "answer": [1, None]}]


def test_a_function_without_columns_gets_only_what_it_names(write):
    narrow = FunctionReward(write("def score(completions): return [1.0 for _ in completions]"))
    assert narrow.score([episode(answer=1)]) == [1.0]
    named = FunctionReward(
        write("def score(completions, answer, weight=2): return [a * weight for a in answer]", file="named.py")
    )
    assert named.score([episode(answer=1, other=5), episode(answer=4, other=6)]) == [2.0, 8.0]


def test_a_missing_column_is_named_with_those_that_exist(write):
    reward = FunctionReward(write("def score(completions, solution, **columns): return solution"))
    with pytest.raises(
        RewardError, match=r"needs the column 'solution'; the columns that every prompt has are \['answer'"
    ):
        reward.score([episode(answer=1, source="a"), episode(answer=2, source="b")])


def test_token_ids_are_given_where_the_signature_names_them(write):
    reward = FunctionReward(write("def score(completion_ids, **columns): return [len(ids) for ids in completion_ids]"))
    assert reward.score([episode()]) == [3.0]


def test_the_completion_of_a_conversation_is_one_assistant_message(write):
    reward = FunctionReward(
        write(
            """
            def score(prompts, completions, **columns):
                assert [m["role"] for m in prompts[0]] == ["user"], prompts
                assert completions[0] == [{"role": "assistant", "content": "So."}], completions
                prompts[0].append({"role": "assistant", "content": "changed"})
                prompts[0][0]["content"] = "changed"
                return [3.0]
            """
        )
    )
    messages = [{"role": "user", "content": "How?"}]
    assert reward.score([episode(messages)]) == [3.0]
    assert messages == [{"role": "user", "content": "How?"}]


def test_a_class_is_instantiated_once_and_closed(write, tmp_path):
    reward = FunctionReward(
        write(
            """
            from pathlib import Path
            class Counter:
                def __init__(self):
                    self.calls = 0
                def __call__(self, completions, **columns):
                    self.calls += 1
                    return [self.calls] * len(completions)
                def close(self):
                    Path(__file__).with_name("closed").write_text(str(self.calls))
            """,
            "Counter",
        )
    )
    assert [reward.score([episode()]) for _ in range(2)] == [[1.0], [2.0]]
    reward.close()
    assert (tmp_path / "closed").read_text() == "2"


def test_no_episodes_are_no_call(write):
    assert FunctionReward(write("def score(**columns): raise RuntimeError")).score([]) == []


def test_a_file_can_use_dataclasses_and_import_what_lies_beside_it(write):
    write("VALUE = 4.0", file="beside_the_reward.py")
    reward = FunctionReward(
        write(
            """
            from __future__ import annotations
            from dataclasses import dataclass
            from typing import ClassVar
            from beside_the_reward import VALUE
            @dataclass
            class Item:
                kind: ClassVar[str] = "x"
                value: float = VALUE
            def score(completions, **columns):
                return [Item().value for _ in completions]
            """
        )
    )
    assert reward.score([episode()]) == [4.0]


def test_two_files_of_one_name_are_two_modules(write):
    code = "import sys\nVALUE = {}\ndef score(**columns): return [sys.modules[__name__].VALUE]"
    rewards = [FunctionReward(write(code.format(value), file=f"{value}/r.py")) for value in (1.0, 2.0)]
    assert [reward.score([episode()]) for reward in rewards] == [[1.0], [2.0]]


def test_a_callable_without_a_signature_is_given_everything(write):
    # Its own complaint shows that it was called.
    reward = FunctionReward(write("score = dict.update"))
    with pytest.raises(RewardError, match=r"raised TypeError: unbound method dict.update\(\) needs an argument"):
        reward.score([episode()])


def test_a_file_that_failed_to_load_leaves_no_module_behind(write):
    before = set(sys.modules)
    with pytest.raises(ConfigError):
        FunctionReward(write("x = 1 / 0"))
    assert set(sys.modules) == before


@pytest.mark.parametrize("spec", ["score", "", ":score", "my.py:", "my.py:a-b", "my.py", "my.py:a.b"])
def test_a_path_without_file_and_name_is_refused(spec):
    with pytest.raises(ConfigError, match=r"expected path/to/file.py:name or package.module:name") as caught:
        FunctionReward(spec)
    assert caught.value.exit_status == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"reward '{tmp_path}/no.py:f': no file '{tmp_path}/no.py'"):
        FunctionReward(f"{tmp_path}/no.py:f")


@pytest.mark.parametrize("spec", ["package_of_test_missing:f", "os.package_of_test_missing:f"])
def test_a_missing_module_is_named(spec):
    with pytest.raises(ConfigError, match=f"reward '{spec}': no module '{spec[:-2]}', looked in"):
        FunctionReward(spec)


def test_a_missing_name_is_answered_by_those_that_exist(write):
    code = "from pathlib import Path\nLIMIT = 3\ndef score_length(c): ...\ndef score_words(c): ...\ndef _hidden(): ..."
    with pytest.raises(ConfigError) as caught:
        FunctionReward(write(code, "score_lenght"))
    message = str(caught.value)
    assert "no 'score_lenght' in" in message
    assert "my_rewards.py, which defines ['score_length', 'score_words']; did you mean 'score_length'?" in message
    with pytest.raises(
        ConfigError, match=r"'LIMIT' is not callable in .*which defines \['score_length', 'score_words'\]"
    ):
        FunctionReward(write(code, "LIMIT"))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def score(:\n", r"loading .*my_rewards.py raised SyntaxError: .* \(.*my_rewards.py, line 1\)$"),
        (
            "\nimport package_of_test_missing\n",
            "raised ModuleNotFoundError: .*, line 2: import package_of_test_missing",
        ),
        ("x = 1\ny = x / 0\n", r"raised ZeroDivisionError: division by zero \(.*my_rewards.py, line 2: y = x / 0\)$"),
        ("import sys\nsys.exit(3)\n", "raised SystemExit: 3 "),
        ("class score:\n  def __init__(self, size): ...\n", r"score\(\) raised TypeError: .*missing 1 required"),
        ("class score: ...\n", "the class 'score' in .*my_rewards.py has no __call__ method"),
    ],
)
def test_what_cannot_be_loaded_is_a_config_error_of_one_line(write, code, message):
    with pytest.raises(ConfigError, match=message) as caught:
        FunctionReward(write(code))
    assert "\n" not in str(caught.value)


def test_an_exception_of_the_user_is_kept_with_its_traceback(write):
    code = "def inner(text):\n    return 1 / len(text)\ndef score(completions): return [*map(inner, completions)]"
    reward = FunctionReward(write(code))
    with pytest.raises(RewardError) as caught:
        reward.score([episode(), episode(completion="")])
    message = str(caught.value)
    assert message.startswith("reward '")
    assert "my_rewards.py:score' raised ZeroDivisionError: division by zero (" in message
    assert message.endswith("my_rewards.py, line 2: return 1 / len(text))")
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    assert traceback.extract_tb(cause.__traceback__)[-1].name == "inner"


def test_the_line_named_is_of_the_users_file_even_when_a_library_raised(write):
    reward = FunctionReward(
        write("import json\ndef score(completions, **columns):\n    return json.loads(completions[0])")
    )
    with pytest.raises(RewardError, match=r"JSONDecodeError: .*my_rewards.py, line 3: return json.loads"):
        reward.score([episode()])


@pytest.mark.parametrize(
    "raised", ["SystemExit(1)", "RuntimeError('two\\nlines \\x1b[0m')", "KeyError('x')", "ValueError()"]
)
def test_any_exception_of_the_user_becomes_one_printable_line(write, raised):
    reward = FunctionReward(write(f"def score(**columns): raise {raised}"))
    with pytest.raises(RewardError) as caught:
        reward.score([episode()])
    assert str(caught.value).isprintable()
    assert raised.partition("(")[0] in str(caught.value)


def test_a_keyboard_interrupt_is_not_the_rewards_fault(write):
    reward = FunctionReward(write("def score(**columns): raise KeyboardInterrupt"))
    with pytest.raises(KeyboardInterrupt):
        reward.score([episode()])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[1.0]", "my_rewards.py:score': expected 2 floats, got list of 1"),
        ("None", "expected 2 floats, got None"),
        ("[float('nan'), 1.0]", "score 0 is nan for the prompt 'How\\?'"),
        ("['1', 1.0]", "score 0 is str '1'"),
    ],
)
def test_what_is_not_one_finite_float_a_response_is_refused(write, returned, message):
    reward = FunctionReward(write(f"def score(**columns): return {returned}"))
    with pytest.raises(RewardError, match=message):
        reward.score([episode("How?"), episode("Why?")])


@pytest.mark.parametrize("answer", ["[1.0, None]", "(1.0, None)"])
def test_none_says_that_the_reward_does_not_apply(write, answer):
    reward = FunctionReward(write(f"def score(**columns): return {answer}"))
    assert reward.score([episode(), episode()]) == [1.0, None]


ASYNC = """
import asyncio
async def score(completions, **columns):
    return await asyncio.gather(*[one(text) for text in completions])
async def one(text):
    await asyncio.sleep(0)
    return float(len(text))
class Session:
    async def __call__(self, completions, **columns):
        self.loop = getattr(self, "loop", asyncio.get_running_loop())
        return [float(self.loop is asyncio.get_running_loop())] * len(completions)
    async def close(self):
        assert self.loop is asyncio.get_running_loop()
        open(__file__ + ".closed", "w").close()
async def broken(completions, **columns):
    raise KeyError("x")
"""


def test_an_async_function_is_awaited(write):
    assert FunctionReward(write(ASYNC)).score([episode(completion="a"), episode(completion="abc")]) == [1.0, 3.0]
    with pytest.raises(RewardError, match=r"raised KeyError: 'x' \(.*my_rewards.py, line 16"):
        FunctionReward(write(ASYNC, "broken")).score([episode()])


def test_an_async_class_keeps_its_event_loop_between_calls_and_is_closed_in_it(write, tmp_path):
    reward = FunctionReward(write(ASYNC, "Session"))
    assert [reward.score([episode()]) for _ in range(2)] == [[1.0], [1.0]]
    reward.close()
    assert (tmp_path / "my_rewards.py.closed").exists()


def test_a_list_scores_the_tokens_of_a_response(write):
    reward = FunctionReward(
        write("def score(completion_ids): return [[float(i) for i in ids] for ids in completion_ids]")
    )
    assert reward.score([episode()]) == [[7.0, 8.0, 2.0]]


def test_spans_of_characters_become_scores_of_tokens(write):
    reward = FunctionReward(write("def score(**columns): return [[(0, 2, 0.5)]]"), ends=lambda ids: [1, 2, 2])
    assert reward.score([episode(completion="So")]) == [[0.0, 0.5, 0.0]]


RAISES_ON_EMPTY = "def score(completions, **columns): return [1 / len(text) for text in completions]"


def test_an_exception_names_the_prompt_and_leaves_the_others_their_scores(write):
    reward = FunctionReward(write(RAISES_ON_EMPTY))
    with pytest.raises(BadScores) as caught:
        reward.score([episode(completion="ab"), episode("Which?", ""), episode(completion="abcd")])
    assert caught.value.scores == [0.5, None, 0.25]
    assert list(caught.value.problems) == [1] and not caught.value.problems[1].is_number
    assert "division by zero (prompt 1, 'Which?'; /" in str(caught.value)


def test_what_each_prompt_alone_gets_wrong_keeps_its_own_index(write):
    code = "def score(completions):\n    if len(completions) > 1: raise ValueError\n    return [float(completions[0])]"
    with pytest.raises(BadScores) as caught:
        FunctionReward(write(code)).score([episode(completion="1"), episode("Q", "nan"), episode(completion="x")])
    assert caught.value.scores == [1.0, None, None]
    assert "score 1 is nan for the prompt 'Q'" in caught.value.problems[1].message
    assert "could not convert string to float: 'x' (prompt 2, " in caught.value.problems[2].message
    assert [problem.is_number for problem in caught.value.problems.values()] == [True, False]


def test_an_exception_that_no_prompt_alone_causes_concerns_all(write):
    code = "def score(completions):\n    if len(completions) > 1: raise ValueError('two')\n    return [1.0]"
    with pytest.raises(RewardError, match=r"ValueError: two \(no prompt raises on its own; .*line 2: ") as caught:
        FunctionReward(write(code)).score([episode(), episode()])
    assert not isinstance(caught.value, BadScores)


def test_a_function_a_class_and_an_object_in_memory_are_taken_as_they_are():
    class Length:
        def __call__(self, completions):
            return [float(len(text)) for text in completions]

    for given in (Length, Length(), lambda completions: [float(len(text)) for text in completions]):
        assert FunctionReward(given).score([episode(completion="abc")]) == [3.0]


def test_what_is_wrong_with_a_reward_in_memory_is_named():
    class Needs:
        def __init__(self, something):
            pass

    class Mute:
        pass

    def fails(completions):
        return completions["no"]

    with pytest.raises(ConfigError, match=r"^reward 'Needs': Needs\(\) raised TypeError: "):
        FunctionReward(Needs)
    with pytest.raises(ConfigError, match=r"^reward 'Mute': the class 'Mute' in .* has no __call__ method"):
        FunctionReward(Mute)
    with pytest.raises(
        RewardError, match=r"^reward 'fails' raised TypeError: .*test_function\.py, line \d+: return comp"
    ):
        FunctionReward(fails).score([episode()])

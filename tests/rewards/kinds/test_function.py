"""Tests of rlhf.rewards.kinds.function."""

import sys
import traceback
from dataclasses import replace

import pytest

from rlhf.errors import ConfigError, RewardError
from rlhf.rewards.checks import BadScores
from rlhf.rewards.kinds.function import FunctionReward
from rlhf.rewards.protocol import Reward

pytestmark = pytest.mark.usefixtures("unchanged_imports")


def test_a_function_of_a_file_scores_prompts_and_completions(write, episode):
    code = "def score(prompts, completions, **columns): return [10 * len(p) + len(completions[0]) for p in prompts]"
    reward: Reward = FunctionReward(write(code))
    assert reward.score([episode("abc", "x"), episode("", "xy")]) == [31.0, 1.0]
    reward.close()


def test_columns_are_lists_and_only_those_that_every_episode_has(write, episode):
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


def test_a_function_without_columns_gets_only_what_it_names(write, episode):
    narrow = FunctionReward(write("def score(completions): return [1.0 for _ in completions]"))
    assert narrow.score([episode(answer=1)]) == [1.0]
    named = FunctionReward(
        write("def score(completions, answer, weight=2): return [a * weight for a in answer]", file="named.py")
    )
    assert named.score([episode(answer=1, other=5), episode(answer=4, other=6)]) == [2.0, 8.0]


def test_a_missing_column_is_named_with_those_that_exist(write, episode):
    reward = FunctionReward(write("def score(completions, solution, **columns): return solution"))
    with pytest.raises(
        RewardError, match=r"needs the column 'solution'; the columns that every prompt has are \['answer'"
    ):
        reward.score([episode(answer=1, source="a"), episode(answer=2, source="b")])


def test_token_ids_are_given_where_the_signature_names_them(write, episode):
    reward = FunctionReward(write("def score(completion_ids, **columns): return [len(ids) for ids in completion_ids]"))
    assert reward.score([episode()]) == [3.0]


def test_the_completion_of_a_conversation_is_one_assistant_message(write, episode):
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


def test_no_episodes_are_no_call(write):
    assert FunctionReward(write("def score(**columns): raise RuntimeError")).score([]) == []


def test_a_callable_without_a_signature_is_given_everything(write, episode):
    # Its own complaint shows that it was called.
    reward = FunctionReward(write("score = dict.update"))
    with pytest.raises(RewardError, match=r"raised TypeError: unbound method dict.update\(\) needs an argument"):
        reward.score([episode()])


def test_an_exception_of_the_user_is_kept_with_its_traceback(write, episode):
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


def test_the_line_named_is_of_the_users_file_even_when_a_library_raised(write, episode):
    reward = FunctionReward(
        write("import json\ndef score(completions, **columns):\n    return json.loads(completions[0])")
    )
    with pytest.raises(RewardError, match=r"JSONDecodeError: .*my_rewards.py, line 3: return json.loads"):
        reward.score([episode()])


@pytest.mark.parametrize(
    "raised", ["SystemExit(1)", "RuntimeError('two\\nlines \\x1b[0m')", "KeyError('x')", "ValueError()"]
)
def test_any_exception_of_the_user_becomes_one_printable_line(write, raised, episode):
    reward = FunctionReward(write(f"def score(**columns): raise {raised}"))
    with pytest.raises(RewardError) as caught:
        reward.score([episode()])
    assert str(caught.value).isprintable()
    assert raised.partition("(")[0] in str(caught.value)


def test_a_keyboard_interrupt_is_not_the_rewards_fault(write, episode):
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
def test_what_is_not_one_finite_float_a_response_is_refused(write, returned, message, episode):
    reward = FunctionReward(write(f"def score(**columns): return {returned}"))
    with pytest.raises(RewardError, match=message):
        reward.score([episode("How?"), episode("Why?")])


@pytest.mark.parametrize("answer", ["[1.0, None]", "(1.0, None)"])
def test_none_says_that_the_reward_does_not_apply(write, answer, episode):
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


def test_an_async_function_is_awaited(write, episode):
    assert FunctionReward(write(ASYNC)).score([episode(completion="a"), episode(completion="abc")]) == [1.0, 3.0]
    with pytest.raises(RewardError, match=r"raised KeyError: 'x' \(.*my_rewards.py, line 16"):
        FunctionReward(write(ASYNC, "broken")).score([episode()])


def test_an_async_class_keeps_its_event_loop_between_calls_and_is_closed_in_it(write, tmp_path, episode):
    reward = FunctionReward(write(ASYNC, "Session"))
    assert [reward.score([episode()]) for _ in range(2)] == [[1.0], [1.0]]
    reward.close()
    assert (tmp_path / "my_rewards.py.closed").exists()


def test_a_list_scores_the_tokens_of_a_response(write, episode):
    reward = FunctionReward(
        write("def score(completion_ids): return [[float(i) for i in ids] for ids in completion_ids]")
    )
    assert reward.score([episode()]) == [[7.0, 8.0, 2.0]]


def test_spans_of_characters_become_scores_of_tokens(write, episode):
    reward = FunctionReward(write("def score(**columns): return [[(0, 2, 0.5)]]"), ends=lambda ids: [1, 2, 2])
    assert reward.score([episode(completion="So")]) == [[0.0, 0.5, 0.0]]


RAISES_ON_EMPTY = "def score(completions, **columns): return [1 / len(text) for text in completions]"


def test_an_exception_names_the_prompt_and_leaves_the_others_their_scores(write, episode):
    reward = FunctionReward(write(RAISES_ON_EMPTY))
    with pytest.raises(BadScores) as caught:
        reward.score([episode(completion="ab"), episode("Which?", ""), episode(completion="abcd")])
    assert caught.value.scores == [0.5, None, 0.25]
    assert list(caught.value.problems) == [1] and not caught.value.problems[1].is_number
    assert "division by zero (prompt 1, 'Which?'; /" in str(caught.value)


def test_what_each_prompt_alone_gets_wrong_keeps_its_own_index(write, episode):
    code = "def score(completions):\n    if len(completions) > 1: raise ValueError\n    return [float(completions[0])]"
    with pytest.raises(BadScores) as caught:
        FunctionReward(write(code)).score([episode(completion="1"), episode("Q", "nan"), episode(completion="x")])
    assert caught.value.scores == [1.0, None, None]
    assert "score 1 is nan for the prompt 'Q'" in caught.value.problems[1].message
    assert "could not convert string to float: 'x' (prompt 2, " in caught.value.problems[2].message
    assert [problem.is_number for problem in caught.value.problems.values()] == [True, False]


def test_an_exception_that_no_prompt_alone_causes_concerns_all(write, episode):
    code = "def score(completions):\n    if len(completions) > 1: raise ValueError('two')\n    return [1.0]"
    with pytest.raises(RewardError, match=r"ValueError: two \(no prompt raises on its own; .*line 2: ") as caught:
        FunctionReward(write(code)).score([episode(), episode()])
    assert not isinstance(caught.value, BadScores)


def test_a_function_a_class_and_an_object_in_memory_are_taken_as_they_are(episode):
    class Length:
        def __call__(self, completions):
            return [float(len(text)) for text in completions]

    for given in (Length, Length(), lambda completions: [float(len(text)) for text in completions]):
        assert FunctionReward(given).score([episode(completion="abc")]) == [3.0]


def test_what_is_wrong_with_a_reward_in_memory_is_named(episode):
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

"""Tests of rlhf.rewards.kinds.user_code: what is loaded from a file or a package, and what is refused."""

import sys

import pytest

from rlhf.errors import ConfigError
from rlhf.rewards.kinds.function import FunctionReward

pytestmark = pytest.mark.usefixtures("unchanged_imports")


def test_a_function_of_a_package_is_found_from_the_current_directory(write, tmp_path, monkeypatch, episode):
    write("", file="package_of_test/__init__.py")
    write("def score(completions, **columns): return [2.5 for _ in completions]", file="package_of_test/rewards.py")
    monkeypatch.chdir(tmp_path)
    assert FunctionReward("package_of_test.rewards:score").score([episode()]) == [2.5]


def test_a_relative_path_is_taken_from_the_current_directory(write, tmp_path, monkeypatch, episode):
    write("def score(completions, **columns): return [1.0]", file="inner/r.py")
    monkeypatch.chdir(tmp_path)
    assert FunctionReward("inner/r.py:score").score([episode()]) == [1.0]
    monkeypatch.chdir(tmp_path / "inner")
    assert FunctionReward("r.py:score").score([episode()]) == [1.0]


def test_a_class_is_instantiated_once_and_closed(write, tmp_path, episode):
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


def test_a_file_can_use_dataclasses_and_import_what_lies_beside_it(write, episode):
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


def test_two_files_of_one_name_are_two_modules(write, episode):
    code = "import sys\nVALUE = {}\ndef score(**columns): return [sys.modules[__name__].VALUE]"
    rewards = [FunctionReward(write(code.format(value), file=f"{value}/r.py")) for value in (1.0, 2.0)]
    assert [reward.score([episode()]) for reward in rewards] == [[1.0], [2.0]]


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

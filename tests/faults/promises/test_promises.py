"""Every fault and every security check has a promise, every promise has tests that exist, and the page tells them."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parents[1]


@pytest.fixture(scope="module")
def told(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `reliability.py`; what it imports is loaded before."""
    module(HERE / "promise.py")
    return module(HERE / "reliability.py")


def test_each_of_the_forty_faults_and_eleven_checks_has_one_promise(told: ModuleType) -> None:
    assert [promise.number for promise in told.FAULTS] == list(range(1, 41))
    assert [promise.number for promise in told.CHECKS] == list(range(1, 12))


def test_every_promise_has_tests_and_every_one_of_them_exists(told: ModuleType) -> None:
    for promise in (*told.FAULTS, *told.CHECKS):
        assert promise.tests, promise.fault
        for test in promise.tests:
            file, _, name = test.partition("::")
            path = TESTS / file
            assert path.is_file() and re.search(rf"^def {name}\(", path.read_text(), re.MULTILINE), test


def test_every_trial_holds_a_promise(told: ModuleType) -> None:
    named = {test for promise in (*told.FAULTS, *told.CHECKS) for test in promise.tests}
    for path in sorted((TESTS / "faults").glob("test_*.py")):
        if "pytestmark = [pytest.mark.trial" in path.read_text():
            found = re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
            assert [name for name in found if f"faults/{path.name}::{name}" not in named] == []


def test_the_page_is_written_from_the_promises_and_the_figures_of_the_last_run(told: ModuleType) -> None:
    found = told.json.loads(told.FIGURES.read_text())
    remedy = "python tests/faults/promises/reliability.py --words"
    assert told.PAGE.read_text() == told.page(found), f"run: {remedy}"


def test_a_promise_holds_only_if_all_its_tests_ran_and_none_failed(told: ModuleType) -> None:
    promise = told.Promise(1, "a fault", "a promise", ("a.py::test_x", "a.py::test_y"))

    def holds(**cases: dict[str, int]) -> bool:
        return bool(told._holds(promise, {"cases": {f"a.py::test_{name}": found for name, found in cases.items()}}))

    assert holds(x={"passed": 2}, y={"passed": 1, "skipped": 1}) and holds(x={"passed": 2}, y={"skipped": 1})
    assert not holds(x={"passed": 2}, y={"failed": 1, "passed": 9})
    assert not holds(x={"passed": 2})
    assert not holds(x={"skipped": 2}, y={"skipped": 1})

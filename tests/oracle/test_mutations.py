"""Every formula is broken on purpose, one at a time, and the proofs named beside it must notice.

A mutation replaces text in the source of one function and swaps the compiled code of that function in place, so that
whoever has imported it runs the broken one. Text that is no longer there fails the test: the list moves with the code.
"""

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType

import pytest

from mutations_of_estimators import ESTIMATORS
from mutations_of_objectives import OBJECTIVES
from proofs import MEANS, MODULES, Mutation

MUTATIONS = [*ESTIMATORS, *OBJECTIVES]


def broken(function: FunctionType, replaced: dict[str, str]) -> CodeType:
    """Compile the function with its text replaced."""
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in replaced.items():
        found = source.count(textwrap.dedent(old) if old.startswith("\n") else old)
        assert found == 1, f"{function.__qualname__} holds {old!r} {found} times: move the mutation with the code"
        source = source.replace(old, new)
    namespace = dict(inspect.unwrap(function).__globals__)
    exec(compile(source, f"<{function.__qualname__}, broken>", "exec"), namespace)
    code: CodeType = inspect.unwrap(namespace[function.__name__]).__code__
    return code


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """Run the broken code wherever the function was imported, and the sound code afterwards."""
    swaps = [
        (inspect.unwrap(function), broken(function, replaced))
        for function, replaced in ((mutation.function, mutation.replaced), *mutation.elsewhere)
    ]
    sound = [function.__code__ for function, _ in swaps]
    for function, code in swaps:
        function.__code__ = code
    try:
        yield
    finally:
        for (function, _), code in zip(swaps, sound, strict=True):
            function.__code__ = code


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_broken_formula_is_noticed(mutation: Mutation) -> None:
    """By an assertion of the proof: a mutation that input validation refuses would say nothing about the proof."""
    for proof in mutation.noticed_by:
        with mutated(mutation), pytest.raises(AssertionError):
            proof()


def test_after_a_mutation_the_sound_formula_is_back() -> None:
    with mutated(MUTATIONS[0]), pytest.raises(AssertionError):
        MEANS()
    MEANS()


def test_every_proof_notices_something() -> None:
    """A proof that no mutation can fail proves nothing."""
    used = {proof.__name__ for mutation in MUTATIONS for proof in mutation.noticed_by}
    idle = {
        "test_the_exact_advantage_has_the_exact_gradient",  # of the oracle itself
        "test_k3_is_never_negative_and_k1_is",
        "test_forced_tokens_as_actions_would_give_another_gradient",  # is itself a mutation of the proof beside it
    }
    everything = {name for module in MODULES for name in vars(module) if name.startswith("test_")}
    assert everything - used == idle

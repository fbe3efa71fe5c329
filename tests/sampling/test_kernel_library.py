"""Tests of how rlhf.sampling.kernels comes by its compiled library, and what it does without."""

import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from rlhf.sampling import kernels
from rlhf.sampling.kernels import Kernels

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """`library` as a new process has it."""
    again = functools.cache(kernels.library.__wrapped__)
    monkeypatch.setattr(kernels, "library", again)
    return again


def _compiler(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "no g++ found"),
        ("exit 1", "CalledProcessError"),
        ("for last; do :; done; echo not a library > $last", "OSError"),
    ],
)
def test_without_a_working_compiler_one_line_is_logged_and_the_twins_are_used(
    fresh: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    script: str | None,
    message: str,
) -> None:
    found = None if script is None else _compiler(tmp_path / "g++", script)
    monkeypatch.setattr("shutil.which", lambda name: found)
    with caplog.at_level(logging.INFO):
        made = [Kernels(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float32)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert message in caplog.text and not any(each.is_compiled for each in made)
    x = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made[0].silu_mul(x), kernels.plain_silu_mul(x))


def test_another_type_than_the_compiled_ones_gets_the_twins() -> None:
    assert not Kernels(torch.float64).is_compiled and not Kernels(torch.float16).is_compiled
    assert Kernels(torch.float32).is_compiled and Kernels(torch.bfloat16).is_compiled


def test_threads_that_ask_at_once_all_get_a_library(fresh: Callable[[], object]) -> None:
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: Kernels(torch.float32).silu_mul(x), range(3)))
    assert all(torch.equal(each, found[0]) for each in found)

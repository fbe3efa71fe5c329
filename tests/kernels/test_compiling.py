"""Tests of rlhf.kernels.compiling, and of sampling without it."""

import functools
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from rlhf.kernels import compiling, decoding, library
from rlhf.kernels.decoding import Kernels

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiler")]


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], object]:
    """`library` as a new process has it, with a cache of its own."""
    monkeypatch.setenv("RLHF_HOME", str(tmp_path / "home"))
    again = functools.cache(library.library.__wrapped__)
    for module in (library, decoding):
        monkeypatch.setattr(module, "library", again)
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
        ('[ "$1" = --version ] || { for last; do :; done; echo not a library > "$last"; }', "OSError"),
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
    assert torch.equal(made[0].silu_mul(x), decoding.plain_silu_mul(x))


def test_another_type_than_the_compiled_ones_gets_the_twins() -> None:
    assert not Kernels(torch.float64).is_compiled and not Kernels(torch.float16).is_compiled
    assert Kernels(torch.float32).is_compiled and Kernels(torch.bfloat16).is_compiled


def test_threads_that_ask_at_once_all_get_a_library(fresh: Callable[[], object]) -> None:
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: Kernels(torch.float32).silu_mul(x), range(3)))
    assert all(torch.equal(each, found[0]) for each in found)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was compiled."""
    made: list[Path] = []
    compile_it = compiling.compiled

    def counted(compiler: str, target: Path) -> Path:
        made.append(target)
        return compile_it(compiler, target)

    monkeypatch.setattr(compiling, "compiled", counted)
    return made


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "home" / "kernels").iterdir())


def test_the_library_is_compiled_once_for_all_processes(
    fresh: Callable[[], object], compilations: list[Path], tmp_path: Path
) -> None:
    assert compiling.load() is not None and compiling.load() is not None
    assert len(compilations) == 1 and [path.suffix for path in kept(tmp_path)] == [".sha256", ".so"]


@pytest.mark.parametrize("damage", ["bytes", "no sum", "gone"])
def test_a_damaged_library_is_compiled_anew(
    fresh: Callable[[], object], compilations: list[Path], tmp_path: Path, damage: str
) -> None:
    compiling.load()
    mark, library = kept(tmp_path)
    if damage == "bytes":
        library.unlink()  # not written over: it is loaded
        library.write_bytes(b"not a library")
    else:
        (mark if damage == "no sum" else library).unlink()
    assert compiling.load() is not None
    assert len(compilations) == 2 and kept(tmp_path) == [mark, library]


@pytest.mark.parametrize("change", ["_processor", "SOURCES", "HEADERS", "FLAGS"])
def test_another_processor_source_or_flag_gets_a_library_of_its_own(
    fresh: Callable[[], object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: str
) -> None:
    compiling.load()
    other = tmp_path / "other.h"
    other.write_text("// another line\n")
    changed = {
        "_processor": lambda: "another",
        "SOURCES": [*compiling.SOURCES[:-1], _with_a_line(compiling.SOURCES[-1], tmp_path)],
        "HEADERS": [*compiling.HEADERS, other],
        "FLAGS": (*compiling.FLAGS, "-DX"),
    }[change]
    monkeypatch.setattr(compiling, change, changed)
    assert compiling.load() is not None
    assert len(kept(tmp_path)) == 4


def _with_a_line(source: Path, folder: Path) -> Path:
    """Copy a source with one more line, and its headers, into a folder."""
    for header in compiling.HEADERS:
        (folder / header.name).write_bytes(header.read_bytes())
    copied = folder / source.name
    copied.write_text(source.read_text() + "\n")
    return copied


def test_a_cache_that_others_can_write_is_not_used(
    fresh: Callable[[], object], compilations: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "home" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert compiling.load() is not None
    assert kept(tmp_path) == [] and not compilations[0].exists()


def test_where_no_cache_can_be_made_the_library_is_compiled_for_the_process(
    fresh: Callable[[], object], compilations: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "home").write_text("a file")
    assert compiling.load() is not None and len(compilations) == 1


def test_what_a_killed_compiler_left_is_removed_by_the_next_and_a_working_one_is_left_alone(
    fresh: Callable[[], object], tmp_path: Path
) -> None:
    folder = tmp_path / "home" / "kernels"
    for name, age in ((".new-killed", 3 * compiling.TIMEOUT), (".new-working", 0)):
        (folder / name).mkdir(parents=True)
        (folder / name / "kernels.so").write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    folder.chmod(0o700)
    assert fresh() is not None
    assert [path.name for path in folder.glob(".new-*")] == [".new-working"]

"""Tests of rlhf.training.telemetry.memory."""

import os

import pytest
import torch

from rlhf.training.telemetry import memory
from rlhf.training.telemetry.memory import available_memory_bytes, peak_memory_bytes

CPU = torch.device("cpu")
PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Let files say what the kernel would: `kernel(available_kib, memory_max, memory_current)`, None for no file."""

    def says(available: int | None, limit: str | None = None, used: int = 0) -> None:
        monkeypatch.setattr(memory, "_PROC", tmp_path / "meminfo")
        monkeypatch.setattr(memory, "_CGROUP", tmp_path)
        if available is not None:
            (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:   {available} kB\n")
        if limit is not None:
            (tmp_path / "memory.max").write_text(f"{limit}\n")
            (tmp_path / "memory.current").write_text(f"{used}\n")

    return says


def test_the_peak_is_at_least_what_was_just_allocated() -> None:
    before = peak_memory_bytes()
    block = torch.ones(8 * 2**20)
    assert peak_memory_bytes() >= max(before, block.nbytes)


def test_what_the_kernel_calls_available_is_available(kernel) -> None:
    kernel(1000)
    assert available_memory_bytes(CPU) == 1000 * 1024


def test_without_a_word_of_the_kernel_it_is_the_physical_memory(kernel) -> None:
    kernel(None)
    assert available_memory_bytes(CPU) == PHYSICAL


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [("500000", 200000, 300000), ("100", 200, 0), ("max", 5, 1024000), ("2000000", 0, 1024000)],
)
def test_a_container_may_have_less(limit, used, expected, kernel) -> None:
    kernel(1000, limit, used)
    assert available_memory_bytes(CPU) == expected


def test_a_gpu_is_asked_for_itself(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 9))
    assert available_memory_bytes(torch.device("cuda", 0)) == 7

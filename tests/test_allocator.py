"""Tests of rlhf.allocator: in processes of their own, because the C library keeps what it is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has this C library")

KEEPS = """
import ctypes, os
from pathlib import Path
from rlhf.allocator import keep_memory

def held():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20

malloc, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
keep_memory()
start, block = held(), malloc(64 * 2**20)
ctypes.memset(block, 1, 64 * 2**20)
free(block)
print(os.environ.get("THP_MEM_ALLOC_ENABLE"), held() - start > 60)
"""


def _said(**variables: str) -> str:
    names = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD", "THP_MEM_ALLOC_ENABLE")
    environment = {name: value for name, value in os.environ.items() if name not in names} | variables
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", KEEPS], env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_large_block_that_was_freed_stays_with_the_process() -> None:
    assert _said() == "1 True"


def test_who_has_chosen_how_memory_is_handed_out_keeps_that() -> None:
    assert _said(MALLOC_TRIM_THRESHOLD_="131072") == "None False"
    assert _said(THP_MEM_ALLOC_ENABLE="0") == "0 True"


def test_the_command_line_chooses_before_torch_is_there() -> None:
    code = "import sys; from rlhf.cli import command; command.keep_memory = lambda: print('torch' in sys.modules); "
    code += "sys.argv = ['rlhf', '--version']; command.console()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0] == "False"


def test_the_python_interface_chooses_too() -> None:
    code = "import os, rlhf; assert 'THP_MEM_ALLOC_ENABLE' not in os.environ; rlhf.PPOTrainer; "
    code += "print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    environment = {name: value for name, value in os.environ.items() if name != "THP_MEM_ALLOC_ENABLE"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"

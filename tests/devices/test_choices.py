"""What a run chooses by its device: the size of the precision check, and whether it can compile."""

import shutil

import pytest
import torch

from rlhf.errors import ConfigError
from rlhf.models.passes import compiled
from rlhf.training import precision


def test_on_a_gpu_the_precision_check_multiplies_larger_matrices(gpu, monkeypatch):
    sizes = []
    monkeypatch.setattr(precision, "SIZE_ON_GPU", 96)
    monkeypatch.setattr(precision, "_seconds", lambda matrix: sizes.append((len(matrix), matrix.is_cuda)) or 1.0)
    precision.bfloat16_speedup.cache_clear()
    try:
        assert precision.bfloat16_speedup(torch.device("cuda", 0)) == 1.0
    finally:
        precision.bfloat16_speedup.cache_clear()
    assert set(sizes) == {(precision.FIRST_SIZE, True), (96, True)}


@pytest.mark.parametrize(("triton", "compiler", "lacking"), [(False, True, "no triton"), (True, False, "no gcc")])
def test_compiling_for_a_gpu_needs_triton_and_a_c_compiler(monkeypatch, caplog, triton, compiler, lacking):
    device = torch.device("cuda", 0)
    monkeypatch.setattr(compiled, "find_spec", lambda name: object() if triton else None)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/gcc" if compiler and name == "gcc" else None)
    with pytest.raises(ConfigError, match=f"compile: on needs .*, and {lacking} was found"):
        compiled.compiles("on", 1, device)
    assert not compiled.compiles("auto", compiled.LONG_RUN, device)
    assert lacking in caplog.text
    monkeypatch.setattr(compiled, "find_spec", lambda name: object())
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    assert compiled.compiles("on", 1, device)

"""What a run chooses by its device: the size of the precision check, whether it can compile, what decoding keeps."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from rlhf.doctor.memory import to_come
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


@pytest.mark.parametrize(
    ("changes", "slots", "is_kept"),
    [
        ({}, 8 * 64, True),  # 5 rows of batch_rows, in a bucket of 8; a prompt and 5 tokens fit into 64
        ({"release_gradients": True}, 8 * 64, False),
        ({"sampling__cuda_graphs": "off"}, None, False),
    ],
)
def test_the_doctor_counts_what_cuda_graphs_keep(gpu, tiny, workshop, changes, slots, is_kept):
    parts = tiny.parts(tiny.ppo_config(workshop, **changes))
    lm, longest = parts.trainer.policy.lm, max(len(prompt.ids) for prompt in parts.prompts)
    assert longest + 5 <= 64
    trial = SimpleNamespace(collected=SimpleNamespace(frozen_states={}), saved_bytes=0.0)
    coming = to_come(parts, trial)
    config = lm.config
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    size = (slots or 5 * (longest + 5)) * token
    assert (coming.kept_cache, coming.sampling) == ((size, 0) if is_kept else (0, size))
    assert coming.total == coming.gradients + coming.moments + size  # activations are 0 here

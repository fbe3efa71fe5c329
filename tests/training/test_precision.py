import pytest
import torch

from rlhf.training.precision import compute_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx512_f": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_takes_bfloat16_on_a_processor_that_multiplies_it(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert compute_dtype("auto", CPU) == expected


@pytest.mark.parametrize(("supported", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_asks_a_gpu_whether_it_has_bfloat16_without_emulation(monkeypatch, supported, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert compute_dtype("auto", torch.device("cuda")) == expected


def test_auto_takes_float32_on_other_devices():
    assert compute_dtype("auto", torch.device("mps")) == torch.float32


@pytest.mark.parametrize(("precision", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_precision_that_is_named_is_taken_whatever_the_hardware(monkeypatch, precision, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": expected != torch.bfloat16})
    assert compute_dtype(precision, CPU) == expected

import shutil

import pytest
import torch

from rlhf.errors import ConfigError
from rlhf.models.anatomy import hidden_states
from rlhf.models.attention import use_short_row_attention
from rlhf.models.compiled import LONG_RUN, compile_blocks, compiles, is_compiled

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("choice", "num_tokens", "expected"),
    [("off", LONG_RUN, False), ("on", 1, True), ("auto", LONG_RUN, True), ("auto", LONG_RUN - 1, False)],
)
def test_auto_compiles_long_runs_only(monkeypatch, choice, num_tokens, expected):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert compiles(choice, num_tokens, CPU) is expected


def test_without_a_compiler_auto_runs_as_it_is_and_on_is_refused(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert compiles("auto", LONG_RUN, CPU) is False
    with pytest.raises(ConfigError, match="compile: on needs a C\\+\\+ compiler"):
        compiles("on", LONG_RUN, CPU)


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++")
def test_compiled_blocks_compute_the_same_and_repeat_themselves_to_the_bit(tiny_model):
    model = tiny_model("llama")
    use_short_row_attention(model)
    short, long = (
        torch.randint(3, 128, shape, generator=torch.Generator().manual_seed(0)) for shape in ((2, 7), (5, 19))
    )
    plain = {ids: hidden_states(model, ids) for ids in (short, long)}
    # The norm at the end fixes the sum of squares, so the loss weighs the entries.
    weights = torch.randn(plain[long].shape, generator=torch.Generator().manual_seed(1))
    plain_gradient = torch.autograd.grad((plain[long] * weights).sum(), model.get_input_embeddings().weight)[0]
    assert not is_compiled(model)
    compile_blocks(model)
    assert is_compiled(model)
    first = {ids: hidden_states(model, ids) for ids in (short, long)}
    for ids in (short, long):
        # Two blocks of the same float32 arithmetic in another order; entries are of the order of 1.
        torch.testing.assert_close(first[ids], plain[ids], rtol=1e-5, atol=1e-5)
        assert torch.equal(hidden_states(model, ids), first[ids])
    gradient = torch.autograd.grad((first[long] * weights).sum(), model.get_input_embeddings().weight)[0]
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-4, atol=1e-4 * float(plain_gradient.abs().max()))
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0

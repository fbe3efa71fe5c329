import shutil

import pytest
import torch

from rlhf.errors import ConfigError
from rlhf.models.passes.anatomy import hidden_states
from rlhf.models.passes.attention import use_short_row_attention
from rlhf.models.passes.compiled import LONG_RUN, compile_blocks, compiles, is_compiled

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _compiles_anew():
    """What torch has compiled, or found that it cannot, is known to it by the code of a block, not by the model."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("choice", "num_tokens", "expected"),
    [("off", LONG_RUN, False), ("on", 1, True), ("auto", LONG_RUN, True), ("auto", LONG_RUN - 1, False)],
)
def test_auto_compiles_long_runs_only(monkeypatch, choice, num_tokens, expected):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert compiles(choice, num_tokens, CPU) is expected


def test_without_a_compiler_auto_says_that_it_does_not_compile_and_on_is_refused(monkeypatch, caplog):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert compiles("auto", LONG_RUN - 1, CPU) is compiles("off", LONG_RUN, CPU) is False
    assert caplog.messages == [], "nothing would have been compiled"
    assert compiles("auto", LONG_RUN, CPU) is False
    assert caplog.messages == ["transformer blocks run as they are, not compiled: no g++ found"]
    with pytest.raises(ConfigError, match="compile: on needs a C\\+\\+ compiler"):
        compiles("on", LONG_RUN, CPU)


def test_blocks_that_cannot_be_compiled_run_as_they_are_with_a_line_in_the_log(tiny_model, monkeypatch, caplog):
    def failing(*_, **__):
        raise RuntimeError("a compiler that is broken")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", failing)
    model, plain = tiny_model("llama"), tiny_model("llama")
    ids = torch.randint(3, 128, (2, 7), generator=torch.Generator().manual_seed(0))
    compile_blocks(model)
    found, expected = hidden_states(model, ids), hidden_states(plain, ids)
    assert torch.equal(found, expected)
    found.sum().backward()
    expected.sum().backward()
    for mine, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert (mine.grad is other.grad is None) or torch.equal(mine.grad, other.grad)
    assert any("a compiler that is broken" in message for message in caplog.messages)


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++")
def test_compiled_blocks_compute_the_same_and_repeat_themselves_to_the_bit(tiny_model, roundings):
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
        atol = roundings.apart(float(plain[ids].detach().abs().max()), roundings.of_a_pass(model.config, ids.shape[1]))
        torch.testing.assert_close(first[ids], plain[ids], rtol=0, atol=atol)
        assert torch.equal(hidden_states(model, ids), first[ids])
    gradient = torch.autograd.grad((first[long] * weights).sum(), model.get_input_embeddings().weight)[0]
    # Each product has two in the backward pass; an embedding's gradient is a sum over the tokens.
    num_roundings = 3 * roundings.of_a_pass(model.config, long.shape[1]) + long.numel()
    atol = roundings.apart(float(plain_gradient.abs().max()), num_roundings)
    torch.testing.assert_close(gradient, plain_gradient, rtol=0, atol=atol)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0

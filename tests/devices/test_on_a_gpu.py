"""What is promised on CUDA. Skipped without a GPU: these tests have not run yet."""

import pytest
import torch

from rlhf.ppo import train_ppo
from rlhf.sampling import static_decoder
from rlhf.sampling.graphs import LARGEST_DIFFERENCE, CudaGraphs, Eager
from rlhf.sampling.sampler import sample
from rlhf.sampling.static_decoder import Kept, StaticDecoder

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")]


def config(tiny, workshop, directory, **changes):
    settings = {"output_dir": str(directory), "steps": 4, "deterministic": True, "checkpoints__every": 1}
    return tiny.ppo_config(workshop, **settings, **changes)


def weights(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.safetensors"))}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_first_ratio_is_1_and_the_first_kl_is_0(tiny, workshop, precision):
    made = tiny.parts(tiny.ppo_config(workshop, model__precision=precision))
    result = made.trainer.step(made.prompts)
    assert all(weight.is_cuda for weight in made.trainer.policy.parameters())
    assert result.updates[0].ratio_deviation == 0.0
    assert float(result.experience.kl.abs().max()) == 0.0


def test_a_deterministic_run_that_was_stopped_ends_in_the_same_bytes(tiny, workshop, tmp_path, stopped_after_two_steps):
    settings = {"model__precision": "bfloat16", "model__trainable_layers": 1}
    whole = train_ppo(config(tiny, workshop, tmp_path / "whole", **settings))
    stopped_after_two_steps(config(tiny, workshop, tmp_path / "stopped", **settings))
    resumed = train_ppo(config(tiny, workshop, tmp_path / "stopped", **settings))
    assert weights(whole) and weights(resumed) == weights(whole)


def test_gradient_checkpointing_changes_no_bit_in_deterministic_mode(tiny, workshop, tmp_path):
    ended = [
        weights(train_ppo(config(tiny, workshop, tmp_path / str(switch), model__gradient_checkpointing=switch)))
        for switch in (False, True)
    ]
    assert ended[0] == ended[1]


@pytest.fixture
def prompts(module, root):
    return module(root / "tests/sampling/tiny_sampling.py").prompts(3, 9, 1, 5, 9, 2, 7, 4, 6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma"])
def test_a_captured_step_gives_the_logits_of_a_called_one(tiny_model, prompts, roundings, family, dtype):
    model, prompts = tiny_model(family).to("cuda", dtype), prompts.to("cuda")
    tokens = torch.randint(3, 128, (9, 12), generator=torch.Generator().manual_seed(2)).cuda()
    found = {}
    for name, runner in (("called", Eager()), ("captured", CudaGraphs())):
        kept, rows, logits = Kept(None, runner), torch.arange(9).cuda(), []
        with torch.no_grad():
            decoder = StaticDecoder(model, prompts, 12, kept)
            decoder.read_prompts()
            for step in range(12):
                if step == 6:  # a smaller bucket
                    rows = rows[[0, 4, 7]]
                    decoder.keep_rows(rows)
                logits.append(decoder.read_tokens(tokens[rows, step]).clone())
        assert not runner.has_failed
        found[name] = logits
    for called, captured in zip(found["called"], found["captured"], strict=True):
        atol = roundings.apart(float(called.abs().max()), roundings.of_a_pass(model.config, 32), dtype)
        torch.testing.assert_close(captured, called, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_samples_with_graphs_are_those_without_but_for_rounding(tiny_model, prompts, dtype, caplog):
    model = tiny_model("llama").to("cuda", dtype)
    with torch.no_grad():
        for round_ in range(2):  # the second one replays what the first has captured, with other weights
            drawn = [
                sample(
                    model, prompts, max_new_tokens=40, temperature=1.0, eos_ids=(), cuda_graphs=cuda_graphs,
                    generator=torch.Generator().manual_seed(round_),
                )
                for cuda_graphs in (True, False)
            ]  # fmt: skip
            pairs = zip(drawn[0].responses, drawn[1].responses, strict=True)
            shared = [next((at for at, (a, b) in enumerate(zip(*pair, strict=True)) if a != b), 40) for pair in pairs]
            assert sum(shared) > 0.5 * 40 * len(shared)  # up to the first draw near a border
            apart = (drawn[0].logprobs - drawn[1].logprobs).abs()
            assert all(float(apart[row, :num].max()) < LARGEST_DIFFERENCE for row, num in enumerate(shared) if num)
            for weight in model.parameters():
                weight.mul_(1.01)
    assert not static_decoder._KEPT[model].runner.has_failed and not caplog.messages


def test_a_step_that_cannot_be_captured_is_called_and_cuda_still_works(tiny_model, prompts, monkeypatch, caplog):
    model = tiny_model("llama").to("cuda")

    def sample_once():
        settings = {"max_new_tokens": 8, "temperature": 1.0, "eos_ids": ()}
        return sample(model, prompts, **settings, generator=torch.Generator().manual_seed(3)).responses

    take = static_decoder.StaticDecoder._step
    expected = sample_once()

    def waiting(self, bucket):
        take(self, bucket)
        bucket.logits.add_(0 * bucket.logits[0, 0].item())

    static_decoder.release(model)
    monkeypatch.setattr(StaticDecoder, "_step", waiting)
    assert sample_once() == expected and len(caplog.messages) == 1
    assert sample_once() == expected and len(caplog.messages) == 1

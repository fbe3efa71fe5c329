"""Decoding on an emulated GPU: the same responses as on a CPU, and a host that looks once in eight steps."""

import pytest
import torch

from rlhf.sampling.decoder import Decoder
from rlhf.sampling.endings import LOOK_EVERY
from rlhf.sampling.filters import Filters
from rlhf.sampling.sampler import sample

NUM_STEPS = 17
FIXED = 24
"""Waits of a batch before its first step and after its last: checks, lengths, equal prompts, the prompts' mask."""
TRIAL = 24
"""Waits before a model's first batch: its logprobs with static shapes are compared with those without."""
CAPTURE = 1
"""Waits of a capture: its replay is compared with the step."""


@pytest.fixture
def prompts(module, root):
    return module(root / "tests/sampling/tiny_sampling.py").prompts(3, 9, 1, 5, 9)


def answers(model, prompts, **changes):
    settings = {"max_new_tokens": NUM_STEPS, "temperature": 1.0, "eos_ids": tuple(range(20, 32)), "min_new_tokens": 1}
    return sample(model, prompts, generator=torch.Generator().manual_seed(3), **(settings | changes))


@pytest.mark.sweep
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3"])
def test_responses_are_those_of_a_cpu(gpu, captures, monkeypatch, tiny_model, prompts, family):
    model = tiny_model(family)
    with monkeypatch.context() as patched:
        patched.setattr("rlhf.sampling.sampler.make_decoder", lambda *given, **options: Decoder(*given))
        expected = answers(model, prompts)
    found = answers(model.to("cuda"), prompts)
    assert found.response_ids.is_cuda and found.logprobs.is_cuda
    assert bool(captures.graphs) == (family == "llama")  # the others have positions or layers of another kind
    assert found.responses == expected.responses and found.ended.tolist() == expected.ended.tolist()
    assert len({len(response) for response in found.responses}) > 1  # rows ended at different steps


@pytest.mark.slow
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_the_host_looks_once_in_eight_steps(gpu, captures, tiny_model, prompts, cuda_graphs):
    model = tiny_model("llama").to("cuda")
    for fixed in (FIXED + cuda_graphs * (TRIAL + CAPTURE), FIXED):
        with gpu.counted() as waits:
            found = answers(model, prompts, eos_ids=(), cuda_graphs=cuda_graphs)
        assert found.response_ids.shape[1] == NUM_STEPS
        assert sum(waits.values()) <= NUM_STEPS // LOOK_EVERY + fixed, waits
        assert sum(count for place, count in waits.items() if "endings.py" in place) == -(-NUM_STEPS // LOOK_EVERY) + 1
    assert len(captures.graphs) == cuda_graphs
    if cuda_graphs:
        assert captures.graphs[0].num_replays == 2 * (NUM_STEPS - 1)


@pytest.mark.slow
def test_stop_strings_end_where_they_are_complete_though_the_host_looks_later(gpu, tiny_model, tiny_tokenizer, prompts):
    forced = torch.tensor([1, 2, 0, 3, 0])
    options = {"eos_ids": (), "stop_strings": ("A", "e", "m", "T"), "tokenizer": tiny_tokenizer, "num_forced": forced}
    model = tiny_model("llama")
    expected = answers(model, prompts, **options)
    model.to("cuda")
    answers(model, prompts)  # the steps are captured, but for the smaller buckets of the next
    with gpu.counted() as waits:
        found = answers(model, prompts, **options)
    assert found.responses == expected.responses and found.ended.tolist() == expected.ended.tolist()
    texts = [tiny_tokenizer.decode(response) for response in found.responses]
    assert sum(text[-1:] in ("A", "e", "m", "T") for text in texts) >= 2
    assert sum(waits.values()) <= NUM_STEPS // LOOK_EVERY + FIXED + 4  # the forced tokens are read


@pytest.mark.slow
def test_filtered_answers_are_those_of_a_cpu(gpu, tiny_model, prompts):
    model, filters = tiny_model("llama"), Filters(top_k=9, top_p=0.8, min_p=0.01, repetition_penalty=1.2)
    expected = answers(model, prompts, filters=filters)
    assert answers(model.to("cuda"), prompts, filters=filters).responses == expected.responses

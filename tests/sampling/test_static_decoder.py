"""Tests of rlhf.sampling.static_decoder: the same samples as without, from steps that a graph can replay."""

import gc
import logging

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rlhf.sampling import sampler, static_decoder
from rlhf.sampling.decoder import Decoder
from rlhf.sampling.graphs import Eager
from rlhf.sampling.sampler import make_decoder
from rlhf.sampling.static_decoder import Kept, StaticDecoder, release
from rlhf.sampling.static_memory import Bucket

FAMILIES = ["llama", "qwen3", "gemma"]
ENDS = {"eos_ids": tuple(range(20, 32)), "min_new_tokens": 1}
"""Tokens that end a response of a tiny model after some steps."""


@pytest.fixture(autouse=True)
def nothing_kept():
    yield
    static_decoder._KEPT.clear()


def sampled(tiny_sampling, monkeypatch, decoder, *args, **settings):
    monkeypatch.setattr(sampler, "make_decoder", lambda *given, **options: decoder(*given))
    return tiny_sampling.sample(*args, **settings)


@pytest.fixture
def both(tiny_sampling, logprob_tolerance, monkeypatch):
    """A function that samples with `Decoder` and with `StaticDecoder`, compares, and returns the samples."""

    def compare(model, prompts, **settings):
        plain, static = (
            sampled(tiny_sampling, monkeypatch, decoder, model, prompts, **settings)
            for decoder in (Decoder, static_decoder.static_decoder)
        )
        assert static.responses == plain.responses and static.ended.tolist() == plain.ended.tolist()
        # Float32 sums over more columns, of which those beyond the tokens add 0, are made in another order.
        atol = logprob_tolerance(model, prompts, plain)
        torch.testing.assert_close(static.logprobs, plain.logprobs, rtol=0, atol=atol)
        return static

    return compare


def repeated(prompts, num):
    return prompts.rows(torch.arange(len(prompts.prompt_ids)).repeat_interleave(num))


@pytest.mark.sweep
@pytest.mark.parametrize("family", FAMILIES)
def test_samples_are_those_of_the_plain_decoder(captures, both, tiny_model, tiny_sampling, family):
    samples = both(tiny_model(family), tiny_sampling.prompts(3, 9, 1, 5, 9, 2, 7, 4, 6), **ENDS)
    assert len({len(response) for response in samples.responses}) > 2  # rows ended at different steps
    assert len(captures.graphs) > 1 and sum(graph.num_replays for graph in captures.graphs) > 4


@pytest.mark.sweep
@pytest.mark.parametrize("family", FAMILIES)
def test_several_samples_of_a_prompt_are_those_of_the_plain_decoder(captures, both, tiny_model, tiny_sampling, family):
    samples = both(tiny_model(family), repeated(tiny_sampling.prompts(3, 9), 3), **ENDS)
    assert len(set(map(tuple, samples.responses))) > 3
    assert captures.graphs


@pytest.mark.sweep
@pytest.mark.parametrize("family", FAMILIES)
def test_forced_tokens_and_stop_strings_are_those_of_the_plain_decoder(
    captures, both, tiny_model, tiny_tokenizer, tiny_sampling, family
):
    options = {"stop_strings": ("A", "e", "m", "T"), "tokenizer": tiny_tokenizer}
    samples = both(
        tiny_model(family), tiny_sampling.prompts(3, 9, 2, 5, 9), num_forced=torch.tensor([1, 2, 0, 3, 0]), **options
    )
    texts = [tiny_tokenizer.decode(response) for response in samples.responses]
    assert sum(text[-1:] in options["stop_strings"] for text in texts) >= 2
    assert captures.graphs


def test_prompts_of_one_length_and_greedy_answers_are_those_of_the_plain_decoder(
    captures, both, tiny_model, tiny_sampling
):
    both(tiny_model("llama"), tiny_sampling.prompts(5, 5, 5), temperature=0.0)
    both(tiny_model("llama"), tiny_sampling.prompts(5), max_new_tokens=2)


def test_a_response_may_be_longer_than_the_smallest_capacity(captures, both, tiny_model, tiny_sampling):
    model = tiny_model("llama")
    samples = both(model, tiny_sampling.prompts(3, 9), max_new_tokens=90)
    assert samples.response_ids.shape[1] == 90 and len(captures.graphs) == 1
    assert static_decoder._KEPT[model].memory.num_slots == 2 * 128


@pytest.mark.sweep
@pytest.mark.parametrize("family", FAMILIES)
def test_steps_of_a_bucket_are_the_same_operations_at_the_same_addresses(
    recorded_graph, tiny_model, tiny_sampling, monkeypatch, family
):
    runner, model = recorded_graph.Repeating(), tiny_model(family)
    kept = Kept(None, runner)
    prompts = tiny_sampling.prompts(3, 9, 1, 5, 9, 2, 7, 4, 6)
    for seed in (1, 2):  # another batch finds the same memory
        sampled(
            tiny_sampling, monkeypatch, lambda *given: StaticDecoder(*given, kept), model, prompts, **ENDS,
            generator=tiny_sampling.generator(seed),
        )  # fmt: skip
    sizes = [size for size, _, _ in runner.num_steps]
    assert set(sizes) <= {16, 8, 4, 2, 1} and len(sizes) >= 3 and sizes[0] == 16
    assert max(runner.num_steps.values()) > 1


def test_a_graph_reads_nothing_but_the_weights_and_the_memory_that_is_kept(captures, both, tiny_model, tiny_sampling):
    model = tiny_model("llama")
    both(model, tiny_sampling.prompts(3, 9, 1, 5, 9), **ENDS)
    owned = [*model.parameters(), *model.buffers(), *static_decoder._KEPT[model].memory.tensors]
    addresses = {tensor.untyped_storage().data_ptr() for tensor in owned}
    assert len(captures.graphs) > 1
    for graph in captures.graphs:
        assert set(graph.operations.outside()) <= addresses


def test_graphs_are_kept_over_rollouts_and_weights_that_change_in_place_are_read(
    captures, both, tiny_model, tiny_sampling
):
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(3, 9, 1, 5, 9)
    before = both(model, prompts)
    captured = len(captures.graphs)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    after = both(model, prompts)
    assert len(captures.graphs) == captured == 1 and captures.graphs[0].num_replays == 30
    assert after.responses != before.responses


def test_weights_that_moved_are_captured_anew(captures, both, tiny_model, tiny_sampling):
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(3, 9, 1, 5, 9)
    both(model, prompts)
    head = model.get_output_embeddings().weight
    head.data = head.data * 1.5
    both(model, prompts)
    assert len(captures.graphs) == 2 and captures.pools == [None, None]
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq * 2  # a buffer counts too
    both(model, prompts)
    assert len(captures.graphs) == 3


def test_an_adapter_that_is_switched_off_has_graphs_of_its_own(captures, both, tiny_model, tiny_sampling):
    model = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(generator=tiny_sampling.generator(3))
    prompts = tiny_sampling.prompts(3, 9, 1, 5, 9)
    adapted = both(model, prompts)
    with model.disable_adapter():
        bare = both(model, prompts)
    assert bare.responses != adapted.responses and len(captures.graphs) == 2
    assert both(model, prompts).responses == adapted.responses
    assert len(captures.graphs) == 2
    for module in model.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling = {"default": 0.3}  # a number that a graph would hold
    assert both(model, prompts).responses != adapted.responses
    assert len(captures.graphs) == 3


def test_where_captures_fail_the_batch_goes_on_and_later_ones_use_the_plain_decoder(
    both, tiny_model, tiny_sampling, monkeypatch, caplog
):
    def refused(step, pool, device):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    monkeypatch.setattr("rlhf.sampling.graphs.capture", refused)
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(3, 9, 1, 5, 9)
    both(model, prompts, **ENDS)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "without CUDA graphs: CUDA error: operation not permitted" in caplog.text
    assert static_decoder.static_decoder(model, prompts, 4) is None and model not in static_decoder._KEPT
    assert len(caplog.records) == 1


@pytest.mark.parametrize("forgets", ["release", "another model"])
def test_a_failed_capture_is_remembered_when_memory_is_freed(both, tiny_model, tiny_sampling, monkeypatch, forgets):
    def refused(step, pool, device):
        raise RuntimeError("no capture")

    monkeypatch.setattr("rlhf.sampling.graphs.capture", refused)
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(3, 9, 1, 5, 9)
    both(model, prompts, **ENDS)
    if forgets == "release":
        static_decoder.release(model)
    else:
        both(tiny_model("qwen3"), prompts, **ENDS)
    assert static_decoder.static_decoder(model, prompts, 4) is None


@pytest.mark.parametrize("breaks", ["all columns are visible", "an error"])
def test_a_model_that_gives_other_logprobs_with_static_shapes_is_decoded_plainly(
    tiny_model, tiny_sampling, monkeypatch, caplog, breaks
):
    def visible(bucket):
        if breaks == "an error":
            raise ValueError("no such mask")
        return torch.ones(len(bucket.ids), 1, 1, bucket.size[1], dtype=torch.bool)

    monkeypatch.setattr(Bucket, "visible", visible)
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(3, 9)
    for _ in range(2):
        assert static_decoder.static_decoder(model, prompts, 4) is None
    [line] = caplog.messages
    why = {"an error": "no such mask"}.get(breaks, "its logprobs with static shapes differ from those without")
    assert line == f"LlamaForCausalLM is decoded without CUDA graphs: {why}"


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gemma3"])
def test_models_with_other_positions_or_sliding_layers_are_decoded_plainly(tiny_model, tiny_sampling, family):
    assert static_decoder.static_decoder(tiny_model(family), tiny_sampling.prompts(3, 9), 4) is None


def test_many_rows_and_a_single_token_are_decoded_plainly(tiny_model, tiny_sampling, monkeypatch):
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(3, 9)
    assert static_decoder.static_decoder(model, prompts, 1) is None
    monkeypatch.setattr(static_decoder, "LARGEST_BUCKET", 8)
    assert static_decoder.static_decoder(model, tiny_sampling.prompts(*range(1, 10)), 4) is None
    assert static_decoder.static_decoder(model, tiny_sampling.prompts(*range(1, 9)), 4) is not None


def test_on_a_cpu_nothing_changes(tiny_model, tiny_sampling):
    prompts = tiny_sampling.prompts(3, 9)
    assert type(make_decoder(tiny_model("qwen3"), prompts, 4)) is Decoder
    assert type(make_decoder(tiny_model("qwen3"), prompts, 4, cuda_graphs=False)) is Decoder
    assert not static_decoder._KEPT


def test_two_batches_are_not_decoded_in_the_same_memory(tiny_model, tiny_sampling):
    model, other, prompts = tiny_model("llama"), tiny_model("llama", seed=1), tiny_sampling.prompts(3, 9)
    first = static_decoder.static_decoder(model, prompts, 4)
    assert first is not None
    assert static_decoder.static_decoder(model, prompts, 4) is None
    assert static_decoder.static_decoder(other, prompts, 4) is None
    del first
    assert static_decoder.static_decoder(model, prompts, 4) is not None


def test_memory_is_kept_for_one_model_at_a_time_and_gone_with_it(captures, both, tiny_model, tiny_sampling):
    one, other, prompts = tiny_model("llama"), tiny_model("llama", seed=1), tiny_sampling.prompts(3, 9)
    both(one, prompts)
    both(other, prompts)
    assert list(static_decoder._KEPT) == [other] and static_decoder.num_graphs(one) == 0
    both(one, prompts)
    assert list(static_decoder._KEPT) == [one] and len(captures.graphs) == 3
    assert static_decoder.num_graphs(one) == 1
    release(one)
    release("a model that is no module")
    assert not static_decoder._KEPT
    both(other, prompts)
    captures.graphs.clear()
    del other
    gc.collect()
    assert not static_decoder._KEPT


def test_a_batch_that_needs_more_gets_more_memory_and_the_smaller_one_uses_it(
    captures, both, tiny_model, tiny_sampling
):
    model, few, long = tiny_model("llama"), tiny_sampling.prompts(3, 9, 1), tiny_sampling.prompts(70)
    seen = []
    for prompts in (few, long, tiny_sampling.prompts(70, 71, 1), few, tiny_sampling.prompts(3, 9, 1, 5, 7), long):
        both(model, prompts, max_new_tokens=3)
        memory = static_decoder._KEPT[model].memory
        seen.append((memory.num_rows, memory.num_slots, len(captures.graphs)))
    assert seen[:2] == [(4, 256, 1), (4, 256, 2)]  # one row of 96 fits, with a graph of its own
    assert seen[2:4] == [(4, 384, 3), (4, 384, 4)]  # more memory, in which nothing was captured yet
    assert seen[4:] == [(8, 512, 5), (8, 512, 6)]


def test_memory_that_grows_in_one_way_does_not_shrink_in_the_other(captures, both, tiny_model, tiny_sampling):
    model = tiny_model("llama")
    both(model, tiny_sampling.prompts(200, 190), max_new_tokens=3)
    memory = static_decoder._KEPT[model].memory
    assert (memory.num_rows, memory.num_slots) == (2, 512)
    both(model, tiny_sampling.prompts(3, 9, 1), max_new_tokens=3)  # more rows, of fewer tokens
    memory = static_decoder._KEPT[model].memory
    assert (memory.num_rows, memory.num_slots) == (4, 512)


def test_what_another_batch_left_in_the_memory_changes_nothing(captures, both, tiny_model, tiny_sampling):
    model, prompts = tiny_model("llama"), tiny_sampling.prompts(3, 9, 1)
    before = both(model, prompts)
    for tensor in static_decoder._KEPT[model].memory.tensors:
        if tensor.is_floating_point():
            tensor.fill_(float("nan"))
    assert both(model, prompts).logprobs.equal(before.logprobs)


def test_rows_in_a_smaller_bucket_are_read_as_before(tiny_model, tiny_sampling, roundings):
    model, lengths = tiny_model("llama"), (3, 11, 6, 4, 8)
    prompts, num_steps = tiny_sampling.prompts(*lengths), 12
    tokens, rows = torch.randint(3, 128, (5, num_steps), generator=tiny_sampling.generator(2)), torch.arange(5)
    with torch.no_grad():
        decoder = StaticDecoder(model, prompts, num_steps, Kept(None, Eager()))
        logits = decoder.read_prompts()
        for step in range(num_steps):
            assert len(logits) == len(rows)
            for row, found in zip(rows.tolist(), logits, strict=True):
                ids = torch.cat([prompts.prompt_ids[row, : lengths[row]], tokens[row, :step]])
                expected = model(input_ids=ids[None], use_cache=False).logits[0, -1]
                atol = roundings.apart(float(expected.abs().max()), roundings.of_a_pass(model.config, len(ids)))
                torch.testing.assert_close(found, expected, rtol=0, atol=atol)
            for at, index in ((4, [3, 0, 4]), (7, [2, 1]), (9, [1, 0])):
                if step == at:
                    rows = rows[index]
                    decoder.keep_rows(torch.tensor(index))
            logits = decoder.read_tokens(tokens[rows, step])

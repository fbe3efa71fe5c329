"""Tests of rlhf.evaluation.respond."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlhf.config.engine import GenerateEngineSection, ServerSection
from rlhf.config.evaluate import DecodingSection
from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError, EngineError
from rlhf.evaluation.respond import Answering, load_policy, logprobs_of_both, respond
from rlhf.sampling.engines import local
from rlhf.sampling.engines.generated import sample_by_generate
from rlhf.training.randomness import generator

CPU = torch.device("cpu")
FAKE = Path(__file__).parents[1] / "sampling" / "engines" / "fake_vllm.py"


def sequence_kl(*given, **options):
    ours, theirs = logprobs_of_both(*given, **options)
    return (ours - theirs).tolist()


TEXTS = ["At heart", "From the start the ending", "In the end the camera work was", "To me", "All in all the hero"]


@pytest.fixture(scope="module")
def policy(policy_directory):
    return load_policy(str(policy_directory(0)), torch.float32, CPU)


@pytest.fixture(scope="module")
def other(policy_directory):
    return load_policy(str(policy_directory(1)), torch.float32, CPU)


@pytest.fixture(scope="module")
def prompts(policy):
    rows = [Row({"prompt": text}, f"prompts.jsonl:{number}") for number, text in enumerate(TEXTS, 1)]
    return prepare_prompts(rows, policy.tokenizer, max_length=32).items


def answers(policy, prompts, seed=0, answering=None, **decoding):
    section = DecodingSection(**{"max_new_tokens": 12, **decoding})
    return respond(policy, prompts, section, generator(seed, "test"), answering)


@pytest.fixture
def fake(module, policy_directory):
    server = module(FAKE).FakeVLLM(str(policy_directory(0)))
    yield server
    server.close()


def slow_logprob(policy, prompt, response, temperature):
    """The whole forward pass of one sequence without padding, one token after the other."""
    logits = policy.model(torch.tensor([[*prompt.ids, *response.ids]])).logits[0].double() / temperature
    logprobs = logits.log_softmax(-1)
    start = len(prompt.ids)
    return sum(float(logprobs[start + step - 1, token]) for step, token in enumerate(response.ids))


def test_a_seed_gives_the_same_responses_and_another_seed_gives_others(policy, prompts):
    assert answers(policy, prompts) == answers(policy, prompts)
    assert answers(policy, prompts) != answers(policy, prompts, seed=1)


def test_responses_stand_in_the_order_of_the_prompts_for_any_number_of_rows(policy, prompts):
    whole = answers(policy, prompts, temperature=0.0)
    assert answers(policy, prompts, temperature=0.0, batch_rows=2) == whole
    assert [answers(policy, [prompt], temperature=0.0)[0] for prompt in prompts] == whole


def test_any_of_several_eos_tokens_ends_a_response(policy, prompts):
    always_ends = replace(policy, eos_ids=tuple(range(len(policy.tokenizer))))
    assert [(len(r.ids), r.ended) for r in answers(always_ends, prompts)] == [(1, True)] * len(prompts)

    response = answers(always_ends, prompts)[0]
    assert response.text == policy.tokenizer.decode(response.ids, skip_special_tokens=True)


def test_the_eos_belongs_to_the_tokens_and_not_to_the_text(policy, prompts):
    class Ends(torch.nn.Module):
        """The policy, with EOS as the one token that it says."""

        config, device = policy.model.config, CPU

        def forward(self, *args, **options):
            output = policy.model(*args, **options)
            output.logits[..., 2] = 1e4
            return output

    assert {(r.text, r.ids, r.ended) for r in answers(replace(policy, model=Ends().eval()), prompts)} == {
        ("", (2,), True)
    }


def test_a_response_without_eos_is_cut_and_did_not_end(policy, prompts):
    never_ends = replace(policy, eos_ids=())
    assert [(len(r.ids), r.ended) for r in answers(never_ends, prompts)] == [(12, False)] * len(prompts)


def test_the_kl_of_a_policy_to_itself_is_exactly_0(policy, prompts, policy_directory):
    responses = answers(policy, prompts)
    twin = load_policy(str(policy_directory(0)), torch.float32, CPU)
    assert sequence_kl(policy, twin, prompts, responses, temperature=1.0, max_tokens=40) == [0.0] * len(prompts)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_kl_is_the_difference_of_two_slow_forward_passes(policy, other, prompts, temperature):
    responses = answers(policy, prompts, temperature=temperature)
    kl = sequence_kl(policy, other, prompts, responses, temperature=temperature, max_tokens=10_000)
    expected = [
        slow_logprob(policy, *pair, temperature) - slow_logprob(other, *pair, temperature)
        for pair in zip(prompts, responses, strict=True)
    ]
    assert kl == pytest.approx(expected, abs=1e-4)
    assert sum(kl) > 1  # two random policies differ


def test_the_kl_does_not_depend_on_how_the_rows_are_batched(policy, other, prompts):
    responses = answers(policy, prompts)
    one_by_one, together = (
        sequence_kl(policy, other, prompts, responses, temperature=1.0, max_tokens=tokens) for tokens in (1, 10_000)
    )
    assert one_by_one == pytest.approx(together, abs=1e-4)


def test_a_prompt_and_a_response_that_exceed_the_positions_are_refused_with_the_three_numbers(policy, prompts):
    longest = max(len(prompt.ids) for prompt in prompts)
    with pytest.raises(ConfigError) as caught:
        answers(policy, prompts, max_new_tokens=129 - longest)
    assert str(caught.value) == (
        f"longest prompt ({longest} tokens) + decoding.max_new_tokens ({129 - longest}) exceed the 128 positions of "
        f"{policy.path} - lower prompts.max_length or decoding.max_new_tokens"
    )
    assert len(answers(policy, prompts, max_new_tokens=128 - longest, temperature=0.0)) == len(prompts)


def test_a_policy_is_frozen_and_computes_in_the_type_that_was_asked_for(policy_directory):
    policy = load_policy(str(policy_directory(0)), torch.bfloat16, CPU)
    assert {parameter.dtype for parameter in policy.model.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in policy.model.parameters())
    assert policy.eos_ids == (2,)


def test_a_directory_without_a_policy_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no tokenizer could be loaded"):
        load_policy(str(tmp_path), torch.float32, CPU)


def test_a_server_answers_from_the_weights_of_one_policy_after_the_other(policy, other, prompts, fake):
    server = Answering(ServerSection(kind="vllm", url=fake.url, retries=0, probe_tolerance=0.01))
    for each in (policy, policy, other, policy):
        found = answers(each, prompts, answering=server, temperature=0.0)
        assert found == answers(each, prompts, temperature=0.0)
    assert len(fake.read) == 3  # the same policy twice in a row is loaded once
    fake.faults = {"stale weights"}
    with pytest.raises(EngineError, match=r"^(wrong|stale) weights: "):
        answers(other, prompts, answering=server)
    fake.faults = set()
    assert answers(other, prompts, answering=server, temperature=0.0) == answers(other, prompts, temperature=0.0)


def test_transformers_generate_answers_what_the_native_decoder_does(policy, prompts, monkeypatch):
    native = answers(policy, prompts)
    asked = []
    monkeypatch.setattr(local, "sample_by_generate", lambda *a, **k: asked.append(1) or sample_by_generate(*a, **k))
    assert answers(policy, prompts, answering=Answering(GenerateEngineSection(kind="generate"))) == native
    assert asked


@pytest.mark.parametrize(("kind", "told"), [("native", [2, 1]), ("vllm", [3])])
def test_whoever_shows_the_progress_is_told_of_each_batch(policy, prompts, fake, kind, told):
    section = ServerSection(kind="vllm", url=fake.url, retries=0) if kind == "vllm" else None
    heard = []
    decoding = DecodingSection(max_new_tokens=4, batch_rows=2)
    respond(policy, prompts[:3], decoding, torch.Generator().manual_seed(0), Answering(section), heard.append)
    assert heard == told


def test_top_k_and_top_p_cut_what_is_drawn_natively_and_by_a_server(policy, prompts, fake):
    server = Answering(ServerSection(kind="vllm", url=fake.url, retries=0))
    greedy = answers(policy, prompts, temperature=0.0)
    assert answers(policy, prompts, top_k=1) == answers(policy, prompts, top_p=1e-6) == greedy
    assert answers(policy, prompts, answering=server, top_k=1, top_p=0.5) == greedy
    assert {(each["top_k"], each["top_p"]) for each in fake.requests[-len(prompts) :]} == {(1, 0.5)}
    assert answers(policy, prompts) != greedy


def test_filters_of_the_model_and_of_ones_own_are_not_mixed():
    with pytest.raises(ConfigError, match="filters: model takes top_k and top_p from the model - leave them out"):
        DecodingSection(filters="model", top_k=5)
    assert DecodingSection(**DecodingSection(filters="model").model_dump()).filters == "model"

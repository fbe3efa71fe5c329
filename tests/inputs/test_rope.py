"""Rotary factors that depend on the length: one choice for a run, the same for every row whatever stands beside it."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, Phi3Config, PhimoeConfig

from rlhf import generate
from rlhf.batches import PromptBatch, Sequences, join
from rlhf.config import RewardModelConfig, SftConfig
from rlhf.doctor.examination import assembled, checked
from rlhf.errors import ConfigError, RewardError
from rlhf.models.passes.rotary import choose_factors, steady_length
from rlhf.models.policy import sequence_logprobs
from rlhf.models.pretrained.loading import check_positions, context_length, load_causal_lm, load_scalar_lm
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.reward_model import train_reward_model
from rlhf.rewards.kinds.model import ModelReward
from rlhf.rewards.protocol import Episode
from rlhf.sampling.sampler import sample
from rlhf.sft import train_sft

LIMIT, POSITIONS, LONGEST = 16, 128, 40
SHORT, LONG = [1.0, 1.1, 1.2, 1.3], [4.0, 5.0, 6.0, 7.0]
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
"""Logprobs of the same float32 operations in batches of another shape."""


@pytest.fixture(scope="session")
def small(module):
    """The module `small_models.py`."""
    return module(Path(__file__).with_name("small_models.py"))


def _longrope(small, kind="phi3"):
    rope = {"rope_type": "longrope", "short_factor": SHORT, "long_factor": LONG, "rope_theta": 10000.0}
    rope |= {"original_max_position_embeddings": LIMIT}
    sizes = {**small.SIZES, "num_key_value_heads": 2, "rope_parameters": rope, "tie_word_embeddings": False}
    if kind == "phi3":
        config = Phi3Config(**sizes, original_max_position_embeddings=LIMIT, resid_pdrop=0.0, embd_pdrop=0.0)
    elif kind == "phimoe":
        rope |= {"short_mscale": 1.1, "long_mscale": 1.3, "factor": 8.0}
        config = PhimoeConfig(**sizes, num_local_experts=2, num_experts_per_tok=1, router_jitter_noise=0.0)
    else:
        config = LlamaConfig(**sizes)
    return small.of_config(config)


def _dynamic(small):
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    return small.of_config(LlamaConfig(**{**small.SIZES, "max_position_embeddings": LIMIT, "rope_parameters": rope}))


def _rows(lengths: list[int], response: int = 4) -> Sequences:
    """Random rows of these many tokens, the last of which are the response."""
    generator = torch.Generator().manual_seed(3)
    prompts = torch.randint(4, 400, (len(lengths), max(lengths) - response), generator=generator)
    mask = torch.arange(prompts.shape[1]) < (torch.tensor(lengths) - response)[:, None]
    responses = torch.randint(4, 400, (len(lengths), response), generator=generator)
    return join(prompts, mask, responses, torch.ones_like(responses, dtype=torch.bool))


def _only(sequences: Sequences, row: int, length: int, filled_to: int) -> torch.Tensor:
    """The ids of a row alone, followed by other tokens up to a length."""
    ids = sequences.input_ids[row : row + 1, :length]
    return torch.nn.functional.pad(ids, (0, filled_to - length), value=9)


@pytest.mark.parametrize("kind", ["phi3", "llama", "phimoe"])
@torch.no_grad()
def test_a_row_is_read_as_the_beginning_of_the_longest_sequence(small, kind) -> None:
    model, untouched = _longrope(small, kind), _longrope(small, kind)
    assert "16 tokens" in choose_factors(model, LONGEST)
    lengths = [8, 30]
    sequences = _rows(lengths)
    together = sequence_logprobs(model, sequences, 4, 1.0)
    for row, length in enumerate(lengths):
        logits = untouched(_only(sequences, row, length, LONGEST)).logits[0, length - 5 : length - 1]
        ids = sequences.input_ids[row, length - 4 : length]
        expected = logits.log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        torch.testing.assert_close(together[row], expected, **TOLERANCE)
    apart = (sequence_logprobs(untouched, sequences, 4, 1.0) - sequence_logprobs(untouched, _rows([8]), 4, 1.0))[0]
    assert apart.abs().max() > 1e-3 or kind == "phimoe"  # what is prevented: the neighbour decided


@torch.no_grad()
def test_cosines_and_sines_are_those_of_the_formula(small) -> None:
    model = _longrope(small)
    choose_factors(model, LONGEST)
    cos, sin = model.model.rotary_emb(torch.zeros(1, 3, 32), torch.tensor([[0, 1, 7]]))
    # Ding et al. 2024, arXiv:2402.13753: theta_i = base^(-2i / D) / factor_i, scaled by sqrt(1 + ln(s) / ln(limit)).
    scale = math.sqrt(1 + math.log(POSITIONS / LIMIT) / math.log(LIMIT))
    for place, position in enumerate([0, 1, 7]):
        for i in range(4):
            angle = position / (LONG[i] * 10000 ** (2 * i / 8))
            assert float(cos[0, place, i]) == pytest.approx(scale * math.cos(angle), abs=1e-5)
            assert float(sin[0, place, i + 4]) == pytest.approx(scale * math.sin(angle), abs=1e-5)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", ["phi3", "llama", "phimoe"])
@torch.no_grad()
def test_the_sampler_draws_from_what_a_pass_computes(small, kind) -> None:
    model = _longrope(small, kind)
    prompts = PromptBatch(
        prompt_ids=torch.randint(4, 400, (2, 12), generator=torch.Generator().manual_seed(1)),
        prompt_mask=torch.arange(12) < torch.tensor([[5], [12]]),
    )
    choose_factors(model, LONGEST)
    samples = sample(
        model, prompts, max_new_tokens=20, temperature=1.0, eos_ids=(), generator=torch.Generator().manual_seed(0)
    )
    sequences = join(prompts.prompt_ids, prompts.prompt_mask, samples.response_ids, samples.response_mask)
    torch.testing.assert_close(sequence_logprobs(model, sequences, 20, 1.0), samples.logprobs, **TOLERANCE)


@torch.no_grad()
def test_short_runs_compute_what_they_did(small) -> None:
    model, untouched, ids = _longrope(small), _longrope(small), _rows([16]).input_ids
    assert choose_factors(model, LIMIT) is None and context_length(model) == LIMIT
    assert torch.equal(model(ids).logits, untouched(ids).logits)


def test_beyond_what_was_chosen_a_sequence_is_refused(small) -> None:
    model = _longrope(small)
    assert steady_length(model) == LIMIT
    with pytest.raises(
        ConfigError, match=r"exceed the 16 positions \(beyond them its rotary factors \(longrope\) depe"
    ):
        check_positions(model, "dir", 14, 3, key="max_new_tokens", fix="lower it")
    choose_factors(model, LONGEST)
    check_positions(model, "dir", 37, 3, key="max_new_tokens", fix="lower it")
    with pytest.raises(ConfigError, match="exceed the 40 positions"):
        check_positions(model, "dir", 38, 3, key="max_new_tokens", fix="lower it")
    choose_factors(model, 10**9)
    assert context_length(model) == POSITIONS


@torch.no_grad()
def test_dynamic_factors_are_constant_up_to_the_positions_and_refused_beyond(small) -> None:
    model, sequences = _dynamic(small), _rows([6, 16])
    assert choose_factors(model, LONGEST) is None and context_length(model) == LIMIT
    together, alone = sequence_logprobs(model, sequences, 4, 1.0)[0], sequences.input_ids[:1, :6]
    expected = model(alone).logits[0, 1:5].log_softmax(-1).gather(-1, alone[0, 2:, None])[:, 0]
    torch.testing.assert_close(together, expected, **TOLERANCE)
    with pytest.raises(ConfigError, match="exceed the 16 positions of dir"):
        check_positions(model, "dir", 14, 3, key="max_new_tokens", fix="lower it")


def test_factors_kept_in_an_unknown_way_are_refused(small) -> None:
    model = _longrope(small)
    del model.model.rotary_emb.rope_type  # as in code that comes with a model
    assert choose_factors(model, LONGEST) is None and context_length(model) == LIMIT


WAYS = {
    "all weights": {},
    "one layer": {"model__trainable_layers": 1},
    "lora": {"model__lora": {"r": 2}},
}


@pytest.mark.sweep
@pytest.mark.parametrize("way", WAYS)
def test_the_doctor_names_the_factors_and_the_first_step_is_right(small, tiny, workshop, tmp_path, way) -> None:
    path = small.save(_longrope(small), tmp_path / "phi3", tiny)
    config = tiny.ppo_config(workshop, model__path=path, sampling__max_new_tokens=16, **WAYS[way])
    findings = {each.name: each for each in checked(assembled(config))}
    assert {findings[name].state for name in ("sampler", "ratio", "KL")} == {"ok"}
    assert findings["positions"].state == "warning" and "longrope" in findings["positions"].line


@pytest.mark.slow
def test_with_resets_and_a_critic_of_its_own_old_logprobs_are_those_of_the_rows_alone(
    small, tiny, workshop, tmp_path
) -> None:
    path = small.save(_longrope(small), tmp_path / "phi3", tiny)
    critic = load_scalar_lm(path, new_head=True)
    save = {"critic": "separate", "critic_model": {"path": small.save(critic, tmp_path / "critic", tiny)}}
    reset = tiny.reset_section(workshop, 0.5)
    made = tiny.parts(tiny.ppo_config(workshop, model__path=path, reset=reset, sampling__max_new_tokens=16, **save))
    assert steady_length(made.critic.model) == steady_length(made.trained.model) == 48
    rollout = tiny.collected(made).rollout
    assert torch.equal(rollout.logprobs, rollout.ref_logprobs)
    assert made.trainer.step([made.prompts[i] for i in range(8)]).updates


def _episode(prompt: int, response: int) -> Episode:
    ids = [5 + place % 40 for place in range(prompt + response)]
    return Episode(
        prompt="x", completion="y", columns={}, prompt_ids=tuple(ids[:prompt]), response_ids=tuple(ids[prompt:])
    )


def _reward(path: str, **options) -> ModelReward:
    return ModelReward(path, load_tokenizer(path), dtype=torch.float32, device=torch.device("cpu"), **options)


@pytest.fixture
def scorer(small, tiny, tmp_path):
    """The directory of a small Phi-3 with a head for scores, which does not say how it was trained."""
    path = small.save(_longrope(small), tmp_path / "phi3", tiny)
    return small.save(load_scalar_lm(path, new_head=True), tmp_path / "scorer", tiny)


def test_a_reward_model_without_a_run_says_its_limit(scorer) -> None:
    with pytest.raises(RewardError, match=r"the model 16 positions \(beyond them its rotary factors \(longrope\)"):
        _reward(scorer).score([_episode(14, 3)])


@torch.no_grad()
def test_a_reward_model_scores_a_row_as_the_beginning_of_the_longest_episode(scorer) -> None:
    reward, short, long = _reward(scorer, longest=LONGEST), _episode(6, 2), _episode(28, 4)
    alone, together = reward.score([short]), reward.score([short, long])
    assert alone[0] == pytest.approx(together[0], abs=1e-5)
    untouched = load_scalar_lm(scorer, new_head=False)
    for score, episode in zip(together, (short, long), strict=True):
        ids = [*episode.prompt_ids, *episode.response_ids]
        padded = torch.tensor([ids + [9] * (LONGEST - len(ids))])
        expected = untouched.score(untouched.model(padded).last_hidden_state[0, len(ids) - 1])
        assert score == pytest.approx(expected.item(), abs=1e-4)
    of_short = untouched.score(untouched.model(torch.tensor([[*short.prompt_ids, *short.response_ids]]))[0][0, -1])
    assert abs(of_short.item() - alone[0]) > 1e-3  # what is prevented: the neighbour decided


def test_ppo_asks_a_reward_model_with_the_factors_of_its_longest_episode(
    scorer, small, tiny, workshop, tmp_path
) -> None:
    path = str(Path(scorer).with_name("phi3"))
    rewards = [{"kind": "model", "path": scorer}]
    made = tiny.parts(tiny.ppo_config(workshop, model__path=path, rewards=rewards, sampling__max_new_tokens=16))
    (asked,) = [each.reward for each in made.trainer.collector.scorer.rewards]
    assert steady_length(asked.model.classifier) == steady_length(made.trained.model) == 48


@pytest.fixture
def phi3(small, tiny, tmp_path):
    """The directory of a small Phi-3, and demonstrations some of which are longer than its first limit."""
    rows = [{"prompt": "The film", "completion": " was fine" * n} for n in (1, 2, 4, 6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return small.save(_longrope(small), tmp_path / "phi3", tiny), str(tmp_path / "rows.jsonl")


def test_finetuning_fixes_the_factors_and_evaluation_does_too(phi3, tmp_path, capsys) -> None:
    path, rows = phi3
    data = {"path": rows, "max_length": 64}
    given = {"output_dir": str(tmp_path / "sft"), "model": {"path": path, "precision": "float32"}, "data": data}
    policy = train_sft(SftConfig.model_validate({**given, "steps": 2, "batch_size": 4}))
    assert "policy: rotary factors (longrope) change beyond 16 tokens" in capsys.readouterr().out
    prompts = [{"prompt": "The film was fine and so on"}]
    answers = generate(str(policy), prompts, max_new_tokens=30, precision="float32")
    assert len(answers) == 1
    assert "rotary factors (longrope)" in capsys.readouterr().err


def _trained_reward_model(path: str, tmp_path: Path, max_length: int) -> str:
    pairs = [{"prompt": "The film", "chosen": " was fine" * (max_length // 16), "rejected": " was"}] * 4
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    data = {"path": str(tmp_path / "pairs.jsonl"), "max_length": max_length}
    given = {"output_dir": str(tmp_path / "rm"), "model": {"path": path, "precision": "float32"}, "data": data}
    return str(train_reward_model(RewardModelConfig.model_validate({**given, "steps": 1, "batch_size": 4})))


def test_a_reward_model_is_asked_with_the_factors_it_was_trained_with(phi3, tmp_path, capsys) -> None:
    trained = _trained_reward_model(phi3[0], tmp_path, 64)
    assert "reward_model: rotary factors (longrope) change beyond 16 tokens" in capsys.readouterr().out
    assert json.loads((Path(trained) / "config.json").read_text())["rotary_length"] == 64
    rewards = [_reward(trained, longest=longest) for longest in (None, 8, LONGEST)]
    scores = [reward.score([_episode(6, 2)])[0] for reward in rewards]
    assert scores[0] == scores[1] == scores[2]
    assert context_length(rewards[1].model.classifier) == POSITIONS


def test_a_reward_model_that_was_trained_below_the_limit_reads_nothing_beyond_it(phi3, tmp_path) -> None:
    trained = _trained_reward_model(phi3[0], tmp_path, 16)
    reward = _reward(trained, longest=LONGEST)
    assert len(reward.score([_episode(12, 4)])) == 1
    with pytest.raises(RewardError, match=r"it was trained with the rotary factors \(longrope\) of at most 16 tokens"):
        reward.score([_episode(14, 3)])


def test_two_processes_fix_the_same_factors_under_a_continued_adapter(
    small, tiny, workshop, tmp_path, in_two_processes
) -> None:
    path = small.save(_longrope(small), tmp_path / "phi3", tiny)
    adapter = get_peft_model(load_causal_lm(path), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            parameter.data.fill_(0.05)
    adapter.peft_config["default"].base_model_name_or_path = path
    adapter.save_pretrained(tmp_path / "adapter")
    tiny.give_tokenizer(tmp_path / "adapter")
    changes = {"model__path": str(tmp_path / "adapter"), "model__lora": "continue", "output_dir": str(tmp_path / "ppo")}
    config = tiny.ppo_config(workshop, **changes, reset=tiny.reset_section(workshop, 0.5), steps=1)
    (tmp_path / "ppo.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    said = in_two_processes([sys.executable, "-m", "rlhf", "ppo", "--config", str(tmp_path / "ppo.yaml")])
    assert [text.count("policy: rotary factors (longrope) change beyond 16 tokens") for text in said] == [1, 0]
    (first,) = [row for row in tiny.logged(tmp_path / "ppo") if "objective/kl" in row]
    assert first["objective/kl"] == 0 and first["val/first_ratio_deviation"] == 0
    assert (tmp_path / "ppo" / "policy" / "adapter_model.safetensors").is_file()

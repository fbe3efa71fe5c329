"""Tests of rlhf.ppo.starts.resets: the distribution of the starts, and what forced tokens do to a PPO step: nothing."""

import dataclasses
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf.batches import Rollout
from rlhf.data.records import Demonstration, Prompt
from rlhf.ppo.run.report import step_metrics
from rlhf.ppo.starts.demonstrations import Ends
from rlhf.ppo.starts.own_best import OwnBest
from rlhf.ppo.starts.report import reset_metrics
from rlhf.ppo.starts.resets import Resets
from rlhf.ppo.starts.start_states import draw_start_states
from rlhf.ppo.tally import NAMES
from rlhf.training.processes import Processes

PROMPTS = [Prompt(name, (place,), name, {}) for place, name in enumerate("pq")]


def shown(name: str, *ids: int) -> Demonstration:
    return Demonstration(Prompt(name, (90,), name, {}), ids)


def make(demonstrations: Any, *, law: Any = None, fraction: float = 0.5, max_new_tokens: int = 4) -> Resets:
    return Resets(
        demonstrations,
        law or (lambda ids, longest, progress: range(1, longest + 1)),
        Ends((2,), (), None),  # type: ignore[arg-type]  # without stop strings nothing is decoded
        torch.Generator().manual_seed(5),
        fraction=fraction,
        max_new_tokens=max_new_tokens,
        num_steps=10,
    )


def test_starts_fall_as_often_as_the_mixture_says() -> None:
    """Coin, demonstration and cut are independent and even, so each start has a probability worked out by hand.

    30 % of the draws are resets; of these a third each fall on one of three demonstrations; the first has one prefix,
    the second two; the third has five tokens, of which three leave one of max_new_tokens = 4 to the policy.
    """
    resets = make([shown("a", 11), shown("b", 21, 22), shown("c", 31, 32, 33, 34, 35)], fraction=0.3)
    expected = {("p", ()): 0.35, ("q", ()): 0.35, ("a", (11,)): 0.1}
    expected |= {("b", (21,)): 0.05, ("b", (21, 22)): 0.05}
    expected |= {("c", (31, 32, 33)[:length]): 0.1 / 3 for length in (1, 2, 3)}
    num = 20000
    found = Counter((start.prompt.text, start.prefix) for start in resets.draw(PROMPTS * (num // 2)))
    assert found.keys() == expected.keys()
    for start, probability in expected.items():
        # Of p and q each comes 10000 times, so the coin alone varies: the binomial bound holds for these too.
        spread = (num * probability * (1 - probability)) ** 0.5
        assert abs(found[start] - num * probability) < 4 * spread, start


def test_a_law_is_told_how_much_of_the_run_is_done() -> None:
    told: list[tuple[int, int, float]] = []

    def law(ids: Any, longest: int, progress: float) -> list[int]:
        told.append((len(ids), longest, progress))
        return [0]

    resets = make([shown("a", *range(11, 17))], law=law, fraction=1.0)
    for _ in range(3):
        assert {(start.prompt.text, start.prefix) for start in resets.draw(PROMPTS[:1])} == {("a", ())}
        resets.finish_step([], [], [], Processes())
    assert told == [(6, 3, 0.0), (6, 3, 0.1), (6, 3, 0.2)]


def test_own_best_begins_at_prompts_until_there_is_something_and_leaves_out_what_ended_it() -> None:
    resets = make(OwnBest(PROMPTS, 4), fraction=1.0)
    assert [start.prompt.text for start in resets.draw(PROMPTS)] == ["p", "q"]
    resets.finish_step(PROMPTS, [(11, 2), (2,)], [0.0, 1.0], Processes())
    assert {(start.prompt.text, start.prefix) for start in resets.draw(PROMPTS * 5)} == {("p", (11,))}


def test_the_state_brings_back_counter_and_own_best() -> None:
    resets, again = (make(OwnBest(PROMPTS, 4), fraction=1.0) for _ in range(2))
    resets.finish_step(PROMPTS, [(11, 12), (13,)], [0.0, 1.0], Processes())
    again.load(resets.state())
    again.generator.set_state(resets.generator.get_state())
    assert again.state() == resets.state() == {"num_done": 1, "own_best": resets.state()["own_best"]}
    assert again.draw(PROMPTS * 9) == resets.draw(PROMPTS * 9)


@pytest.fixture
def made(tiny: ModuleType, workshop: Path) -> Any:
    """Half the episodes begin inside a demonstration; policy and value head have something to say."""
    section = tiny.reset_section(workshop, 0.5)
    config = tiny.ppo_config(
        workshop, reset=section, sampling__max_new_tokens=6, entropy_coef=0.01, score__missing_eos_penalty=3.0
    )
    made = tiny.parts(config)
    tiny.stir(made.trainer, 0.02)
    return made


def collect(made: Any) -> Any:
    trainer = made.trainer
    starts = draw_start_states(made.prompts, 0, torch.device("cpu"), trainer.resets)
    return starts, trainer.collector.collect(starts, trainer.generators.rollout)


def test_a_rollout_after_resets_holds_what_the_models_say_about_each_sampled_token(made: Any) -> None:
    starts, collected = collect(made)
    rollout = collected.rollout
    lm, head = made.trainer.policy.lm, made.trainer.policy.value_head
    reference = made.trainer.collector.reference.model
    assert len({len(prefix) for prefix in starts.prefixes}) > 2, "rows with several budgets"
    for row, (prompt, prefix) in enumerate(zip(starts.prompts, starts.prefixes, strict=True)):
        num_forced, mask = len(prefix), rollout.response_mask[row]
        length = num_forced + int(mask.sum())
        assert rollout.forced[row].nonzero()[:, 0].tolist() == list(range(num_forced))
        assert mask.nonzero()[:, 0].tolist() == list(range(num_forced, length)) and length > num_forced
        assert length <= 6 and (bool(rollout.ended[row]) or length == 6), "forced and sampled share one budget"
        response = rollout.response_ids[row, :length]
        assert response[:num_forced].tolist() == list(prefix)
        first = len(prompt.ids) + num_forced
        with torch.no_grad():
            said = lm(input_ids=torch.tensor([[*prompt.ids, *response.tolist()]]), output_hidden_states=True)
            ref = reference(input_ids=torch.tensor([[*prompt.ids, *response.tolist()]])).logits
            values = head(said.hidden_states[-1][0, first - 1 : -1])
        for found, logits in ((rollout.logprobs, said.logits), (rollout.ref_logprobs, ref)):
            expected = logits[0, first - 1 : -1].log_softmax(-1).gather(1, response[num_forced:, None])[:, 0]
            torch.testing.assert_close(found[row][mask], expected, rtol=1e-5, atol=1e-5)
            assert not found[row][~mask].any()
        torch.testing.assert_close(rollout.values[row][mask], values, rtol=1e-5, atol=1e-5)


def test_rewards_read_the_whole_response_and_its_score_lies_on_the_last_sampled_token(
    tiny: ModuleType, made: Any
) -> None:
    starts, collected = collect(made)
    rollout, tokenizer = collected.rollout, made.trainer.collector.tokenizer
    batch = tiny.experience(made.trainer, dataclasses.replace(rollout, ref_logprobs=rollout.logprobs))
    for row, episode in enumerate(collected.episodes):
        whole = rollout.response_ids[row][rollout.response_mask[row] | rollout.forced[row]].tolist()
        assert list(episode.response_ids) == whole
        assert episode.completion == tokenizer.decode(whole, skip_special_tokens=True)
        assert collected.prefixes[row] == tokenizer.decode(starts.prefixes[row], skip_special_tokens=True)
        assert (episode.prompt, episode.columns) == (starts.prompts[row].raw, starts.prompts[row].columns)
        raw = episode.completion.count("e") / max(len(episode.completion), 1)
        score = raw - (0.0 if rollout.ended[row] else 3.0)
        assert float(batch.rewards[row, len(whole) - 1]) == pytest.approx(score), "policy = reference: no KL"
        assert float(batch.rewards[row].abs().sum()) == pytest.approx(abs(score))


def losses(made: Any, rollout: Rollout, tiny: ModuleType) -> tuple[Any, dict[str, float], list[Tensor]]:
    """Experience, the sums of a loss over all rows, and its gradients."""
    trainer = made.trainer
    batch = tiny.experience(trainer, rollout)
    trainer.policy.zero_grad()
    loss, numbers, _ = trainer.loss(batch, num_tokens=float(rollout.response_mask.sum()))
    sums = dict(zip(NAMES, numbers.tolist(), strict=True))
    loss.backward()
    # The optimizer takes each gradient over as soon as it is there.
    gradients = [master.grad.clone() for master in trainer.optimizer.weights.masters.values()]
    trainer.optimizer.discard()
    return batch, {"loss": float(loss.detach()), **sums}, gradients


def test_what_stands_at_forced_positions_enters_nothing(tiny: ModuleType, made: Any) -> None:
    _, collected = collect(made)
    tiny.stir(made.trainer, 0.01, seed=4)  # the ratio is not 1
    rollout = collected.rollout
    numbers = ("logprobs", "ref_logprobs", "values", "token_scores")
    garbage = 1e3 * torch.randn(rollout.values.shape, generator=torch.Generator().manual_seed(1))
    dirty = dataclasses.replace(
        rollout, **{name: torch.where(rollout.forced, garbage, getattr(rollout, name)) for name in numbers}
    )
    assert not torch.equal(dirty.values, rollout.values)
    (clean_batch, clean, clean_gradients), (dirty_batch, unclean, gradients) = (
        losses(made, each, tiny) for each in (rollout, dirty)
    )
    for name in ("kl", "rewards", "advantages", "returns"):
        assert torch.equal(getattr(dirty_batch, name), getattr(clean_batch, name)), name
    assert unclean == clean
    assert all(map(torch.equal, gradients, clean_gradients)) and any(each.any() for each in gradients)
    assert made.trainer.sequence_kl(dirty_batch) == made.trainer.sequence_kl(clean_batch)


def test_forced_tokens_are_as_good_as_tokens_of_the_prompt(tiny: ModuleType, made: Any) -> None:
    """The same sequences, once with the forced tokens in the response and once at the end of the prompt."""
    starts, collected = collect(made)
    tiny.stir(made.trainer, 0.01, seed=4)
    rollout = collected.rollout
    emitted = [rollout.response_ids[row][mask] for row, mask in enumerate(rollout.response_mask)]
    width = max(map(len, emitted))
    mask = torch.arange(width) < torch.tensor([len(ids) for ids in emitted])[:, None]

    def moved(tensor: Tensor) -> Tensor:
        return torch.zeros(mask.shape, dtype=tensor.dtype).masked_scatter(mask, tensor[rollout.response_mask])

    names = ("response_ids", "logprobs", "ref_logprobs", "values", "token_scores")
    prompted = dataclasses.replace(
        rollout,
        prompt_ids=starts.states.prompt_ids, prompt_mask=starts.states.prompt_mask,
        response_mask=mask, forced=torch.zeros_like(mask), **{name: moved(getattr(rollout, name)) for name in names},
    )  # fmt: skip
    (batch, forced, forced_gradients), (other, plain, gradients) = (
        losses(made, each, tiny) for each in (rollout, prompted)
    )
    for name in ("kl", "rewards", "advantages", "returns"):
        torch.testing.assert_close(moved(getattr(batch, name)), getattr(other, name), **tiny.LOOSE)
    assert forced == pytest.approx(plain, rel=1e-4, abs=1e-5)
    for found, expected in zip(forced_gradients, gradients, strict=True):
        torch.testing.assert_close(found, expected, **tiny.LOOSE)


def test_the_first_update_after_resets_has_ratio_one_and_all_numbers_are_of_sampled_tokens(made: Any) -> None:
    trainer = made.trainer
    result = trainer.step(made.prompts)
    rollout = result.experience.rollout
    assert result.updates[0].ratio_deviation == 0.0
    metrics, resets = step_metrics(result, Processes()), reset_metrics(result, Processes())
    sampled, num_forced = int(rollout.response_mask.sum()), int(rollout.forced.sum())
    kl = result.experience.kl
    assert metrics["val/response_length"] == pytest.approx((sampled + num_forced) / 8)
    assert metrics["objective/kl_per_token"] == pytest.approx(float(kl.sum()) / sampled)
    assert metrics["objective/entropy"] == pytest.approx(-float(rollout.logprobs.sum()) / sampled)
    is_reset = rollout.forced[:, 0]
    assert 0 < int(is_reset.sum()) < 8
    assert resets == pytest.approx({
        "reset/share": int(is_reset.sum()) / 8,
        "reset/forced_tokens": num_forced / int(is_reset.sum()),
        "reset/decode_tokens_saved": num_forced,
        "reset/decode_steps_saved": result.collected.decode_steps_saved,
        "reset/scores_at_prompts": float(rollout.scores[~is_reset].mean()),
        "reset/kl_at_prompts": float(kl[~is_reset].sum(1).mean()),
        "reset/scores_at_resets": float(rollout.scores[is_reset].mean()),
        "reset/kl_at_resets": float(kl[is_reset].sum(1).mean()),
    })  # fmt: skip


@pytest.mark.parametrize("changes", [{}, {"model__trainable_layers": 1}])
def test_the_responses_of_a_group_begin_in_one_state(tiny: ModuleType, workshop: Path, changes: dict[str, Any]) -> None:
    section = tiny.reset_section(workshop, 0.5)
    groups = {"num_samples_per_prompt": 4, "advantage": "rloo", "sampling__max_new_tokens": 6}
    made = tiny.parts(tiny.ppo_config(workshop, reset=section, rollout_batch_size=16, **groups, **changes))
    result = made.trainer.step(made.prompts[:4])
    rollout = result.experience.rollout
    states = [
        (ids[mask].tolist(), said[forced].tolist())
        for ids, mask, said, forced in zip(
            rollout.prompt_ids, rollout.prompt_mask, rollout.response_ids, rollout.forced, strict=True
        )
    ]
    assert all(state == states[row - row % 4] for row, state in enumerate(states))
    assert len({str(state) for state in states}) > 2 and 0 < int(rollout.forced[:, 0].sum()) < 16
    assert result.updates[0].ratio_deviation == 0.0

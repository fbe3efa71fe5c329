"""Tests of rlhf.ppo.rollout."""

import math
import shutil
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlhf.batches import join
from rlhf.errors import GuardStop
from rlhf.models.passes.anatomy import blocks, hidden_states
from rlhf.models.passes.compiled import is_compiled


@pytest.fixture
def made(tiny: ModuleType, workshop: Path) -> Any:
    made = tiny.parts(tiny.ppo_config(workshop, sampling__temperature=0.7, score__missing_eos_penalty=10.0))
    tiny.stir(made.trainer, 0.02)
    return made


def test_a_rollout_holds_what_the_models_say_about_each_token(tiny: ModuleType, made: Any) -> None:
    rollout = tiny.collected(made).rollout
    lm, head = made.trainer.policy.lm, made.trainer.policy.value_head
    reference = made.trainer.collector.reference.model
    lengths = rollout.response_mask.sum(1).tolist()
    assert len(set(lengths)) > 1
    for row, length in enumerate(lengths):
        prompt = rollout.prompt_ids[row][rollout.prompt_mask[row]]
        response = rollout.response_ids[row, :length]
        ids = torch.cat([prompt, response])[None]
        with torch.no_grad():
            said = lm(input_ids=ids, output_hidden_states=True)
            ref = reference(input_ids=ids).logits
            values = head(said.hidden_states[-1][0, len(prompt) - 1 : -1])
        for found, logits in ((rollout.logprobs, said.logits), (rollout.ref_logprobs, ref)):
            expected = (logits[0, len(prompt) - 1 : -1] / 0.7).log_softmax(-1).gather(1, response[:, None])[:, 0]
            torch.testing.assert_close(found[row, :length], expected, rtol=1e-5, atol=1e-5)
            assert not found[row, length:].any()
        torch.testing.assert_close(rollout.values[row, :length], values, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(rollout.logprobs, rollout.ref_logprobs, atol=1e-3)


def test_with_nothing_frozen_no_states_are_kept(tiny: ModuleType, made: Any) -> None:
    assert tiny.collected(made).frozen_states == {}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling needs g++")
def test_compiled_blocks_give_a_ratio_of_exactly_one_at_the_first_update(tiny: ModuleType, workshop: Path) -> None:
    """In float32, where the code that keeps gradients rounds otherwise than the code that does not (by 4e-7 here)."""
    made = tiny.parts(tiny.ppo_config(workshop, compile="on"))
    assert is_compiled(made.trainer.policy.lm) and is_compiled(made.trainer.collector.reference.model)
    tiny.stir(made.trainer, 0.02)
    result = made.trainer.step(made.prompts)
    assert torch._dynamo.utils.counters["frames"]["ok"] > 0, "blocks were compiled"
    assert result.updates[0].ratio_deviation == 0.0 and result.updates[0].ratio_max == 1.0
    assert result.updates[-1].ratio_deviation > 0.0, "later updates move the policy"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_frozen_states_are_those_of_each_microbatch(tiny: ModuleType, workshop: Path, precision: str) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, model__trainable_layers=1, model__precision=precision))
    tiny.stir(made.trainer, 0.02)
    collected, lm = tiny.collected(made), made.trainer.policy.lm
    rollout, groups = collected.rollout, collected.microbatches.all()
    assert len(collected.frozen_states) == len(groups) > 1
    for rows in groups:
        part = rollout.rows(rows)
        sequences = join(part.prompt_ids, part.prompt_mask, part.response_ids, part.response_mask)
        said: list[torch.Tensor] = []
        hook = blocks(lm)[0].register_forward_hook(lambda _, ins, out, said=said: said.extend([ins[0], out]))
        with torch.no_grad():
            hidden_states(lm, sequences.input_ids, sequences.lengths)
        hook.remove()
        is_real = torch.arange(sequences.input_ids.shape[1]) < sequences.lengths[:, None]
        before, after = (each[0] if len(each) < len(is_real) else each[is_real] for each in said)  # packed, or rows
        assert torch.equal(collected.frozen_states[int(rows[0])][is_real], after)
        assert not torch.equal(before, after)


def test_scores_and_episodes_belong_to_their_rows(tiny: ModuleType, made: Any) -> None:
    collected = tiny.collected(made)
    tokenizer = made.trainer.collector.tokenizer
    assert len(set(collected.rollout.ended.tolist())) == 2, "some responses end, some are cut"
    for row, episode in enumerate(collected.episodes):
        ids = collected.rollout.response_ids[row][collected.rollout.response_mask[row]].tolist()
        assert list(episode.response_ids) == ids
        assert episode.completion == tokenizer.decode(ids, skip_special_tokens=True)
        assert episode.prompt == made.prompts[row].raw and episode.columns == {"label": row}
        raw = episode.completion.count("e") / max(len(episode.completion), 1)
        assert collected.raw_scores[row] == pytest.approx(raw)
        assert float(collected.rollout.scores[row]) == pytest.approx(
            raw - (0 if collected.rollout.ended[row] else 10.0)
        )


def test_the_same_generator_state_gives_the_same_rollout(tiny: ModuleType, made: Any) -> None:
    trainer = made.trainer
    state = trainer.generators.rollout.get_state()
    first = tiny.collected(made)
    second = tiny.collected(made)
    trainer.generators.rollout.set_state(state)
    again = tiny.collected(made)
    assert torch.equal(first.rollout.response_ids, again.rollout.response_ids)
    assert [g.tolist() for g in first.microbatches.all()] == [g.tolist() for g in again.microbatches.all()]
    assert first.episodes != second.episodes


def test_responses_of_all_parts_are_joined_in_order(tiny: ModuleType, made: Any) -> None:
    """batch_rows 5 cuts 8 prompts into 5 and 3; the parts are of unequal width."""
    starts = tiny.starts(made, range(8))
    samples = made.trainer.collector.respond(starts, torch.Generator().manual_seed(1))
    lengths = samples.response_mask.sum(1)
    assert len(samples.response_ids) == 8 and int(lengths.min()) >= 1
    assert torch.equal(samples.response_mask, torch.arange(samples.response_ids.shape[1]) < lengths[:, None])
    first = made.trainer.collector.respond(tiny.starts(made, range(5)), torch.Generator().manual_seed(1))
    width = first.response_ids.shape[1]
    assert torch.equal(samples.response_ids[:5, :width], first.response_ids)


def test_an_immediate_eos_is_a_response_of_one_token_with_the_score_on_it(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, reward="constant"))
    trainer = made.trainer
    trainer.collector.eos_ids = tuple(range(488))  # whatever comes first ends the response
    collected = tiny.collected(made)
    assert collected.rollout.response_mask.tolist() == [[True]] * 8 and collected.rollout.ended.all()
    assert torch.equal(tiny.experience(trainer, collected.rollout).rewards, torch.full((8, 1), 0.1))
    result = trainer.step(made.prompts)
    assert all(math.isfinite(update.means["policy_loss"]) for update in result.updates)


def test_a_policy_that_is_not_finite_stops_the_run(tiny: ModuleType, made: Any) -> None:
    with torch.no_grad():
        made.trainer.policy.lm.model.norm.weight[0] = torch.nan
    before = tiny.weights(made.trainer)
    with pytest.raises(GuardStop, match="not finite"):
        made.trainer.step(made.prompts)
    for name, weight in tiny.weights(made.trainer).items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0, equal_nan=True)


def test_microbatches_are_cut_over_prompt_and_response(tiny: ModuleType, made: Any) -> None:
    collected = tiny.collected(made)
    rollout = collected.rollout
    lengths = rollout.prompt_mask.sum(1) + rollout.response_mask.sum(1)
    for group in collected.microbatches.all():
        assert len(group) == 1 or len(group) * int(lengths[group].max()) <= 24
    assert sorted(int(row) for group in collected.microbatches.all() for row in group) == list(range(8))


@pytest.mark.parametrize("fraction", [0.0, 1.0], ids=["at the prompt", "resets"])
def test_a_reward_that_is_asked_early_is_asked_while_responses_are_drawn_and_changes_nothing(
    tiny: ModuleType, workshop: Path, fraction: float
) -> None:
    results, asked = [], []
    for early in (False, True):
        reward = {"kind": "function", "path": f"{workshop / 'rewards.py'}:share_of_e", "early": early}
        changes = {"reset": tiny.reset_section(workshop, fraction)} if fraction else {}
        made = tiny.parts(tiny.ppo_config(workshop, rewards=[reward], **changes))
        asked.append(_watched(made.trainer.collector))
        results.append(made.trainer.step(made.prompts))
    late, early = results
    assert late.collected.raw_scores == early.collected.raw_scores
    assert [each.means for each in late.updates] == [each.means for each in early.updates]
    assert asked[0] == [("over", 8)]
    texts = sorted({each.completion for each in early.collected.episodes})
    assert asked[1][0][0] == "drawing" and {when for when, _ in asked[1]} <= {"drawing", "over"}
    assert sum(num for _, num in asked[1]) <= 8 and len(texts) <= sum(num for _, num in asked[1])


def _watched(collector: Any) -> list[tuple[str, int]]:
    """When the reward is asked, and about how many responses; the engine goes on once it was asked."""
    asked: list[tuple[str, int]] = []
    (component,), sample, state = collector.scorer.rewards, collector.engine.sample, {"now": "drawing"}
    score, was_asked = component.reward.score, threading.Event()

    def watched_score(episodes: Any) -> Any:
        asked.append((state["now"], len(episodes)))
        was_asked.set()
        return score(episodes)

    def watched_sample(*args: Any) -> Any:
        *others, on_over = args

        def told(row: int, ids: list[int]) -> None:
            on_over(row, ids)
            assert was_asked.wait(20)

        samples = sample(*others, None if on_over is None else told)
        state["now"] = "over"
        return samples

    component.reward.score, collector.engine.sample = watched_score, watched_sample
    return asked

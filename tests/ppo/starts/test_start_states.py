"""Tests of rlhf.ppo.starts.start_states."""

from collections import Counter
from collections.abc import Sequence

import torch

from rlhf.data.records import Prompt
from rlhf.ppo.run.prompt_source import PromptOrder
from rlhf.ppo.starts.resets import Start
from rlhf.ppo.starts.start_states import draw_start_states


def test_every_prompt_comes_once_an_epoch_and_batches_run_over_its_end() -> None:
    order = PromptOrder(10, batch_size=4, seed=3)
    places = [prompt for step in range(5) for prompt in order.batch(step)]  # 20 places: two epochs
    assert sorted(places[:10]) == sorted(places[10:]) == list(range(10))
    assert places[:10] != places[10:]


def test_the_order_follows_from_seed_and_step_alone() -> None:
    batches = [PromptOrder(50, 8, seed=1).batch(step) for step in range(20)]
    order = PromptOrder(50, 8, seed=1)
    assert [order.batch(step) for step in reversed(range(20))] == batches[::-1]
    assert PromptOrder(50, 8, seed=2).batch(0) != batches[0]


def test_fewer_prompts_than_a_batch_repeat_evenly() -> None:
    assert Counter(PromptOrder(3, batch_size=9, seed=0).batch(0)) == {0: 3, 1: 3, 2: 3}
    assert PromptOrder(1, batch_size=4, seed=0).batch(7) == [0, 0, 0, 0]


def test_start_states_hold_the_prompts_and_their_padded_ids() -> None:
    prompts = [Prompt("ab", (5, 6), "ab", {}), Prompt("c", (7,), "c", {})]
    starts = draw_start_states(prompts, pad_id=0, device=torch.device("cpu"))
    assert starts.prompts == prompts
    assert starts.batch.prompt_ids.tolist() == [[5, 6], [7, 0]]
    assert starts.batch.prompt_mask.tolist() == [[True, True], [True, False]]


class Fixed:
    """Resets that fall on every prompt but the first."""

    def draw(self, prompts: Sequence[Prompt]) -> list[Start]:
        return [Start(prompts[0]), *(Start(Prompt("d", (9,), "d", {}), (1, 2)) for _ in prompts[1:])]


def test_forced_tokens_stand_behind_the_prompt_in_what_the_policy_reads() -> None:
    prompts = [Prompt("ab", (5, 6), "ab", {}), Prompt("c", (7,), "c", {})]
    starts = draw_start_states(prompts, 0, torch.device("cpu"), Fixed())
    assert [prompt.text for prompt in starts.prompts] == ["ab", "d"], "a reset takes the demonstration's prompt"
    assert starts.batch.prompt_ids.tolist() == [[5, 6], [9, 0]]
    assert starts.states.prompt_ids.tolist() == [[5, 6, 0], [9, 1, 2]]
    assert starts.states.prompt_mask.tolist() == [[True, True, False], [True, True, True]]
    assert starts.num_forced.tolist() == [0, 2]


def test_samples_of_one_start_stand_together_and_begin_alike() -> None:
    prompts = [Prompt("ab", (5, 6), "ab", {}), Prompt("c", (7,), "c", {})]
    starts = draw_start_states(prompts, 0, torch.device("cpu"), Fixed(), num_samples=2)
    assert [prompt.text for prompt in starts.prompts] == ["ab", "ab", "d", "d"]
    assert list(starts.prefixes) == [(), (), (1, 2), (1, 2)]

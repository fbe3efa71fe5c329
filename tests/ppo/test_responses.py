"""Tests of rlhf.ppo.responses."""

import torch

from rlhf.batches import Samples
from rlhf.data.batching import collate_prompts
from rlhf.data.records import Prompt
from rlhf.ppo.responses import decode_steps_saved, whole_responses
from rlhf.ppo.starts.start_states import StartStates

PREFIXES = [(11, 12, 13), (), (14,), ()]
EMITTED = [(21,), (22, 23, 24), (25, 26), (27,)]


def responses():
    prompts = [Prompt("x", (5, 6), "x", {})] * 4
    batch = collate_prompts(prompts, 0)
    mask = torch.arange(3) < torch.tensor([len(ids) for ids in EMITTED])[:, None]
    ids = torch.zeros(4, 3, dtype=torch.int64)
    for row, emitted in enumerate(EMITTED):
        ids[row, : len(emitted)] = torch.tensor(emitted)
    ended = torch.tensor([True, False, True, False])
    samples = Samples(response_ids=ids, response_mask=mask, logprobs=torch.zeros(4, 3), ended=ended)
    return whole_responses(StartStates(prompts, PREFIXES, batch, batch), samples)


def test_forced_tokens_stand_before_what_was_emitted() -> None:
    found = responses()
    assert found.response_ids.tolist() == [[11, 12, 13, 21], [22, 23, 24, 0], [14, 25, 26, 0], [27, 0, 0, 0]]
    assert found.forced.sum(1).tolist() == [3, 0, 1, 0] and found.forced[0].tolist() == [True, True, True, False]
    assert found.response_mask.int().tolist() == [[0, 0, 0, 1], [1, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 0]]
    assert found.lengths.tolist() == [4, 3, 3, 1]
    assert found.ended.tolist() == [True, False, True, False]


def test_steps_saved_are_those_of_the_longest_row_of_each_batch() -> None:
    """Of all four: 4, not the 3 emitted. In twos: 4, not 3, and 3, not 2. One by one: 3 in the first, 1 in row 2."""
    assert [decode_steps_saved(responses(), rows) for rows in (4, 2, 1)] == [1, 2, 4]

import torch

from rlhf.oracle.language import tiny_language
from rlhf.oracle.trajectories import enumerate_trajectories


def test_responses_end_with_eos_or_at_the_horizon_and_bear_their_score_at_the_end():
    language = tiny_language(4, 3, torch.Generator().manual_seed(0))
    assert language.eos == 3 and len(language.prefixes) == 1 + 3 + 9
    listed = enumerate_trajectories(language.process)
    responses = [tuple(row[kept].tolist()) for row, kept in zip(listed.actions, listed.mask, strict=True)]
    assert len(set(responses)) == len(responses) == 1 + 3 + 9 * 4
    for response, states, rewards in zip(responses, listed.states.tolist(), listed.rewards, strict=True):
        assert (response[-1] == 3) or len(response) == 3
        assert 3 not in response[:-1]
        assert [language.prefixes[state] for state in states[: len(response)]] == [
            response[:t] for t in range(len(response))
        ]
        assert rewards.nonzero().flatten().tolist() == [len(response) - 1]


def test_episodes_can_begin_at_prefixes():
    language = tiny_language(4, 3, torch.Generator().manual_seed(0))
    process = language.beginning_at({(): 0.25, (1, 2): 0.75})
    listed = enumerate_trajectories(process)
    begins = {language.prefixes[state] for state in listed.states[:, 0].tolist()}
    assert begins == {(), (1, 2)}
    first = torch.tensor([language.prefixes.index((1, 2))])
    assert int((listed.states[:, 0] == first).sum()) == 4
    assert torch.equal(process.rewards, language.process.rewards)

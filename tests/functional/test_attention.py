import pytest
import torch

from rlhf.functional.attention import grouped_attention


@pytest.mark.parametrize("group", [1, 2, 3])
def test_heads_of_a_group_share_their_keys(group: int) -> None:
    """Head by head, written out; in float64, where 1e-12 is far above rounding and far below any mistake."""
    numbers = torch.Generator().manual_seed(0)
    queries = torch.randn(2, 2 * group, 4, 8, dtype=torch.float64, generator=numbers)
    keys = torch.randn(2, 2, 5, 8, dtype=torch.float64, generator=numbers)
    values = torch.randn(2, 2, 5, 3, dtype=torch.float64, generator=numbers)
    invisible = torch.rand(4, 5, generator=numbers) < 0.4
    invisible[:, 0] = False
    found = grouped_attention(queries, keys, values, invisible, 0.3)
    for row in range(2):
        for head in range(2 * group):
            scores = 0.3 * queries[row, head] @ keys[row, head // group].T
            weights = scores.masked_fill(invisible, -torch.inf).softmax(-1)
            torch.testing.assert_close(found[row, head], weights @ values[row, head // group], rtol=0, atol=1e-12)


def test_a_row_that_sees_nothing_takes_the_mean_of_all_values() -> None:
    values = torch.tensor([[[[1.0], [5.0]]]])
    found = grouped_attention(torch.ones(1, 1, 1, 2), torch.ones(1, 1, 2, 2), values, torch.ones(1, 2).bool(), 1.0)
    assert found.tolist() == [[[[3.0]]]]

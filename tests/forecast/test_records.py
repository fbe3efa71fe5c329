import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.config.shared import DataSection
from rlhf.data.records import Prepared
from rlhf.forecast.origin import Unknown
from rlhf.forecast.records import LOOKED_AT, looked_at, spread


@given(st.integers(0, 3000), st.integers(2, 50))
def test_rows_are_spread_evenly_and_counted(num, most):
    kept, counted = spread(range(num), most)
    assert counted == num and len(kept) <= most
    assert len(kept) >= min(num, most // 2) and kept[:1] == list(range(num))[:1]
    assert len(Counter(second - first for first, second in itertools.pairwise(kept))) <= 1


def test_the_rows_that_were_not_looked_at_are_dropped_in_the_same_share(tmp_path):
    num = 3 * LOOKED_AT
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"text": "{number}"}}\n' for number in range(num)))

    def every_second(source):
        return Prepared([int(row.values["text"]) for row in source.rows][::2], {}, "")

    known = looked_at(DataSection(path=str(path)), every_second)
    assert known.num == num // 2 and len(known.items) <= LOOKED_AT / 2 and known.seconds > 0


def test_a_limit_counts_too(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n' * 9)
    known = looked_at(DataSection(path=str(path), limit=4), lambda source: Prepared(list(source.rows), {}, ""))
    assert known.num == 4


def test_data_that_is_elsewhere_is_not_asked_for():
    with pytest.raises(Unknown, match=r"^org/reviews is not on this machine$"):
        looked_at(DataSection(path="org/reviews"), lambda source: Prepared([], {}, ""))

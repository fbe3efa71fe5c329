from collections import Counter

from rlhf.data.records import Pair
from rlhf.data.unfinished import with_unfinished

PROMPT, EOS = (5, 6), 2
PAIR = Pair(chosen_ids=(*PROMPT, 7, 8, 9, EOS), rejected_ids=(*PROMPT, 4, 3, EOS), margin=0.5)


def test_a_fraction_of_zero_changes_nothing_and_one_cuts_every_pair():
    assert with_unfinished([PAIR] * 3, 0.0, seed=0) == [PAIR] * 3
    assert all(pair != PAIR for pair in with_unfinished([PAIR] * 3, 1.0, seed=0))


def test_the_chosen_text_stays_and_its_own_beginning_is_rejected():
    for pair in with_unfinished([PAIR] * 50, 1.0, seed=0):
        assert pair.chosen_ids == PAIR.chosen_ids and pair.margin == 0.0
        assert pair.rejected_ids == PAIR.chosen_ids[: len(pair.rejected_ids)]


def test_every_place_after_the_prompt_and_before_the_eos_is_as_probable():
    places = Counter(len(pair.rejected_ids) for pair in with_unfinished([PAIR] * 3000, 1.0, seed=0))
    assert set(places) == {3, 4, 5}
    # 1000 expected of each; a standard deviation is sqrt(3000 * 1/3 * 2/3) = 26.
    assert all(abs(count - 1000) < 5 * 26 for count in places.values())


def test_the_share_of_cut_pairs_is_the_fraction():
    cut = sum(pair != PAIR for pair in with_unfinished([PAIR] * 2000, 0.25, seed=1))
    assert abs(cut - 500) < 5 * 20  # a standard deviation is sqrt(2000 * 0.25 * 0.75) = 19.4


def test_the_same_seed_cuts_the_same_pairs():
    pairs = [PAIR] * 40
    assert with_unfinished(pairs, 0.5, seed=3) == with_unfinished(pairs, 0.5, seed=3)
    assert with_unfinished(pairs, 0.5, seed=3) != with_unfinished(pairs, 0.5, seed=4)


def test_a_pair_without_room_for_a_cut_stays():
    short = Pair(chosen_ids=(5, 6, 7), rejected_ids=(5, 6, 8), margin=0.0)
    begins_alike = Pair(chosen_ids=(5, 6), rejected_ids=(5, 6, 8), margin=0.0)
    assert with_unfinished([short, begins_alike], 1.0, seed=0) == [short, begins_alike]

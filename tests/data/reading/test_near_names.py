from rlhf.data.reading.near_names import hint


def test_a_misspelt_column_and_another_word_for_it_are_guessed():
    assert hint(["prompt"], ["promt", "x"]) == "; did you mean column_map: {prompt: promt}?"
    assert hint(["chosen", "rejected"], ["Preferred", "other"]) == "; did you mean column_map: {chosen: Preferred}?"


def test_nothing_near_gives_no_hint():
    assert hint(["prompt"], ["zebra"]) == ""
    assert hint(["prompt"], ["prompt"]) == ""

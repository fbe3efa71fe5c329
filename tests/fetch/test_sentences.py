import pytest

from rlhf.fetch.sentences import all_pieces, clean, is_sound, normalised, opening_and_closing, split_sentences

SHORT = "It is short."
TEN = "This one sentence has in all just about ten words."
FIFTEEN = "This longer sentence has a few more words in it, and so fifteen in all."


def test_line_breaks_and_white_space_become_one_space():
    assert clean("One.<br /><br />Two\t  three.<BR>") == "One. Two three."


def test_texts_are_the_same_by_their_words():
    assert normalised('"Hello,  WORLD!"') == normalised("hello world") == "hello world"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Mr. Smith met J. R. Ewing. They left.", ["Mr. Smith met J. R. Ewing.", "They left."]),
        ('He said "Go!" Then he left.', ['He said "Go!"', "Then he left."]),
        ("It costs 3.50 now. yes, lower case goes on.", ["It costs 3.50 now. yes, lower case goes on."]),
        ('"Really?" It was. "Yes."', ['"Really?"', "It was.", '"Yes."']),
        ("", []),
    ],
)
def test_sentences_end_before_a_capital(text, expected):
    assert split_sentences(text) == expected


@pytest.mark.parametrize(
    "sentence",
    [
        "No end",
        "lower case.",
        "Caf\u00e9 life.",
        'An "open quote.',
        "An (open bracket.",
        "See www.x.com now.",
        "A <b>.",
        "",
    ],
)
def test_sentences_with_flaws_are_not_sound(sentence):
    assert not is_sound(sentence)


def test_plain_sentences_are_sound():
    for sentence in (SHORT, 'He said "Go!"', "It was (nearly) 90 minutes long!", "I give it a 7/10."):
        assert is_sound(sentence)


def test_pieces_are_runs_of_whole_sentences_of_10_to_30_words():
    # 10 + 15 = 25 words fit, the next 15 would make 40; they make a piece alone; the 3 words after it join it.
    assert all_pieces([TEN, FIFTEEN, FIFTEEN, SHORT], set()) == [f"{TEN} {FIFTEEN}", f"{FIFTEEN} {SHORT}"]
    assert all_pieces([SHORT], set()) == []


def test_a_barred_or_flawed_sentence_ends_a_piece():
    assert all_pieces([TEN, FIFTEEN, TEN.replace("one", "1")], {normalised(FIFTEEN)}) == [TEN, TEN.replace("one", "1")]
    assert all_pieces([TEN, "Caf\u00e9.", TEN], set()) == [TEN, TEN]


def test_the_opening_and_the_closing_do_not_overlap():
    assert opening_and_closing(["a", "b", "c"]) == ["a", "c"]
    assert opening_and_closing(["a"]) == ["a"]
    assert opening_and_closing([]) == []

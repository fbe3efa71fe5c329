from collections import Counter

from rlhf.fetch.parts import PART_SHARES, Piece, Review, cut_into_pieces, openings_and_closings
from rlhf.fetch.reviews import read_reviews
from rlhf.fetch.sentences import normalised

TEN = "This one sentence has in all just about ten words."
OTHER = "That other sentence also comes to ten words in all."


def review(key, *sentences, label=1):
    return Review(key=key.ljust(64, "0"), label=label, sentences=sentences)


def test_a_review_belongs_to_the_part_that_its_hash_falls_into():
    # 0x4c/256 = 0.297 and 0x4d/256 = 0.301 lie beside the edge 0.30 of A; 0xa6/256 = 0.648, 0xa7/256 = 0.652.
    edges = {"00": "A", "4c": "A", "4d": "B", "a6": "B", "a7": "C", "e6": "C", "e7": "D", "f4": "E", "ff": "E"}
    assert {key: review(key).part for key in edges} == edges


def test_the_share_of_each_part_is_as_stated(table):
    reviews = read_reviews(table)
    counts = Counter(each.part for each in reviews)
    for part, share in PART_SHARES.items():
        assert abs(counts[part] / len(reviews) - share) < 0.04


def test_a_piece_is_cut_into_prompt_and_completion():
    piece = Piece(text=TEN, review=review("00"), place=0)
    assert piece.prompt == "This one sentence has"
    assert piece.completion == " in all just about ten words."


def test_a_telling_sentence_of_two_parts_is_used_in_neither():
    pieces = cut_into_pieces([review("00", TEN), review("80", TEN, OTHER), review("01", TEN)])
    assert pieces["A"] == []
    assert [piece.text for piece in pieces["B"]] == [OTHER]


def test_a_piece_that_occurs_twice_in_a_part_is_taken_once():
    pieces = cut_into_pieces([review("00", TEN), review("01", TEN)])
    assert [piece.text for piece in pieces["A"]] == [TEN]


def test_no_piece_and_no_telling_sentence_is_in_two_parts(table):
    pieces = cut_into_pieces(read_reviews(table))
    assert all(pieces.values())
    owners = {}
    for part, found in pieces.items():
        for piece in found:
            assert owners.setdefault(normalised(piece.text), part) == part
            for sentence in piece.text.split(". "):
                assert owners.setdefault(normalised(sentence), part) == part


def test_of_each_review_the_first_and_the_last_piece_are_kept():
    sentences = [TEN.replace("one", word) + " " + OTHER.replace("other", word) for word in ("a", "b", "c", "d")]
    kept = openings_and_closings(cut_into_pieces([review("00", *sentences)])["A"])
    assert {(piece.text, piece.place) for piece in kept} == {(sentences[0], 0), (sentences[-1], 1)}

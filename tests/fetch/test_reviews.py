import json
import zipfile
from pathlib import Path

import pytest

from rlhf.errors import DataError
from rlhf.fetch import reviews
from rlhf.fetch.parts import Piece, Review
from rlhf.fetch.reviews import MEMBER, _matched, build, read_reviews, split_files
from rlhf.fetch.sentences import normalised

PARTS = {
    "A": ("sft_train.jsonl", "sft_eval.jsonl"),
    "B": ("gold_train.jsonl", "gold_eval.jsonl"),
    "C": ("preference_train.jsonl", "preference_eval.jsonl"),
    "D": ("heldout_prompts.jsonl",),
    "E": ("selection_prompts.jsonl",),
}


def whole_texts(row):
    if "completion" in row:
        return [row["prompt"] + row["completion"]]
    return [row[name] for name in ("text", "chosen", "rejected", "human") if name in row]


def check_files(files):
    """What must hold of the files, synthetic or real."""
    check_texts(files)
    check_prompts(files)
    for name in PARTS["A"]:
        assert 2 * sum(row["label"] for row in files[name]) == len(files[name])
    for row in (row for name in PARTS["C"] for row in files[name]):
        assert abs(len(row["chosen"].split()) - len(row["rejected"].split())) <= 3
    assert not {row["review"] for row in files["gold_train.jsonl"]} & {
        row["review"] for row in files["gold_eval.jsonl"]
    }


def check_texts(files):
    owners = {}
    for name in (name for names in PARTS.values() for name in names):
        assert files[name], name
        texts = [text for row in files[name] for text in whole_texts(row)]
        assert len(set(texts)) == len(texts)
        for text in texts:
            assert owners.setdefault(normalised(text), name) == name, text
            assert 10 <= len(text.split()) <= 30, text
            assert text.isascii()
            assert "<br" not in text


def check_prompts(files):
    prompts = {name: {row["prompt"] for row in files[name]} for name in files if "prompt" in files[name][0]}
    for name in ("ppo_prompts.jsonl", "heldout_prompts.jsonl", "selection_prompts.jsonl"):
        assert len(prompts[name]) == len(files[name])
    used = prompts["sft_train.jsonl"] | prompts["sft_eval.jsonl"] | prompts["ppo_prompts.jsonl"]
    assert not prompts["heldout_prompts.jsonl"] & (used | prompts["selection_prompts.jsonl"])
    assert not prompts["selection_prompts.jsonl"] & used
    assert prompts["ppo_prompts.jsonl"] >= prompts["sft_train.jsonl"]
    for row in files["heldout_prompts.jsonl"]:
        assert row["human"].startswith(row["prompt"] + " ")
        assert len(row["prompt"].split()) == 4


def test_the_files_of_a_synthetic_table_are_disjoint_and_well_formed(table):
    check_files(split_files(read_reviews(table)))


def test_the_chosen_text_is_the_one_whose_author_liked_the_film(table):
    found = read_reviews(table)
    label = {sentence: review.label for review in found for sentence in review.sentences}
    for row in split_files(found)["preference_train.jsonl"]:
        first = {side: row[side].split(". ")[0].rstrip(".") + "." for side in ("chosen", "rejected")}
        assert (label[first["chosen"]], label[first["rejected"]]) == (1, 0)


def test_each_piece_is_paired_once_with_one_of_like_length():
    def pieces(*lengths):
        review = Review(key="0" * 64, label=1, sentences=())
        return [Piece(text=" ".join(["w"] * length), review=review, place=0) for length in lengths]

    # 10 lies 5 words from 15, so it is passed over; 18 goes with 16 alone, though 17 is near too.
    pairs = _matched(liked=pieces(15, 18, 22, 30), disliked=pieces(10, 15, 16, 17, 25, 27))
    found = [(len(chosen.text.split()), len(rejected.text.split())) for chosen, rejected in pairs]
    assert found == [(15, 15), (18, 16), (22, 25), (30, 27)]


def test_evaluation_files_are_cut_to_their_size(table, monkeypatch):
    monkeypatch.setattr(reviews, "NUM_EVAL", 4)
    files = split_files(read_reviews(table))
    assert (len(files["sft_eval.jsonl"]), len(files["preference_eval.jsonl"])) == (4, 4)
    assert sum(row["label"] for row in files["sft_eval.jsonl"]) == 2


def test_duplicates_and_other_sources_are_dropped(table):
    found = read_reviews(table)
    assert len({review.key for review in found}) == len(found) <= 1500
    assert not any("other source" in sentence for review in found for sentence in review.sentences)


@pytest.mark.slow
def test_the_order_of_the_table_does_not_matter(table):
    header, *lines = table.splitlines(keepends=True)
    assert split_files(read_reviews(header + "".join(reversed(lines)))) == split_files(read_reviews(table))


def test_a_text_with_two_verdicts_is_dropped():
    text = "This one sentence has in all just about ten words."
    rows = f"text,label,source\n{text},1,imdb\n{text.upper()},0,imdb\nOther {text},1,imdb\n"
    assert [review.sentences for review in read_reviews(rows)] == [(f"Other {text}",)]


def test_an_unknown_label_is_refused():
    with pytest.raises(DataError, match="label must be 0 or 1, found 'good'"):
        read_reviews("text,label,source\nx,good,imdb\n")


@pytest.mark.slow
def test_building_twice_writes_the_same_bytes(table, tmp_path):
    wheel = tmp_path / "reviews.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, table)
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        counts = build(wheel, tmp_path / name)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]
    assert counts["ppo_prompts.jsonl"] == contents[0]["ppo_prompts.jsonl"].count(b"\n")
    assert set(contents[0]) == {name for name in counts if name.endswith(".jsonl")}


@pytest.mark.real
def test_no_text_of_the_real_reviews_is_in_two_parts(real_artifact):
    directory = Path(real_artifact("movie-reviews"))
    files = {path.name: [json.loads(line) for line in path.open()] for path in directory.glob("*.jsonl")}
    check_files(files)
    assert len(files["heldout_prompts.jsonl"]) >= 256
    assert len(files["sft_eval.jsonl"]) == len(files["preference_eval.jsonl"]) == 400

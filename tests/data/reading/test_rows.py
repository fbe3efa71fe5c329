import datasets
import pytest

from rlhf.data.reading.rows import read_rows
from rlhf.errors import DataError

ROWS = [{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]


def test_jsonl_csv_parquet_and_a_saved_directory_give_the_same_rows(tmp_path, on_disk):
    table = datasets.Dataset.from_list(ROWS)
    table.save_to_disk(tmp_path / "saved")
    table.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("question,answer\na,b\nc,d\n")
    on_disk.write_rows(tmp_path / "a.jsonl", ROWS)
    for name in ("a.jsonl", "a.csv", "a.parquet", "saved"):
        assert [row.values for row in read_rows(tmp_path / name)] == ROWS, name


def test_rows_without_lines_are_located_by_their_number(tmp_path):
    table = datasets.Dataset.from_list(ROWS)
    table.to_parquet(tmp_path / "a.parquet")
    table.save_to_disk(tmp_path / "saved")
    assert read_rows(tmp_path / "a.parquet")[1].location == f"{tmp_path}/a.parquet:row 2"
    assert read_rows(tmp_path / "saved")[1].location == f"{tmp_path}/saved:row 2"


def test_a_saved_dictionary_needs_one_of_its_splits(tmp_path):
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    assert read_rows(tmp_path / "saved", split="train")[0].location == f"{tmp_path}/saved[train]:row 1"
    for split in (None, "test"):
        with pytest.raises(DataError, match=f"no split {split!r}; expected one of train"):
            read_rows(tmp_path / "saved", split=split)


def test_column_map_gives_our_name_to_their_column(tmp_path, on_disk):
    path = on_disk.write_rows(tmp_path / "a.jsonl", [{"question": "a", "prompt": "old", "id": 1}])
    assert read_rows(path, column_map={"prompt": "question"})[0].values == {"prompt": "a", "id": 1}


def test_column_map_can_exchange_two_columns(tmp_path, on_disk):
    path = on_disk.write_rows(tmp_path / "a.jsonl", [{"chosen": "a", "rejected": "b"}])
    rows = read_rows(path, column_map={"chosen": "rejected", "rejected": "chosen"})
    assert rows[0].values == {"chosen": "b", "rejected": "a"}


def test_column_map_of_a_column_that_a_row_lacks_is_refused(tmp_path, on_disk):
    path = on_disk.write_rows(tmp_path / "a.jsonl", [{"question": "a"}, {"answer": "a"}])
    with pytest.raises(DataError, match=r"a.jsonl:2: column_map names 'question' for 'prompt', found columns \['answ"):
        read_rows(path, column_map={"prompt": "question"})


def test_limit_stops_reading_before_what_follows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\nnot JSON\n')
    assert len(read_rows(path, limit=2)) == 2


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "empty"])
def test_a_source_without_rows_says_0_rows(tmp_path, name):
    (tmp_path / "a.jsonl").write_text("\n")
    (tmp_path / "a.csv").write_text("prompt\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"{name}: 0 rows"):
        read_rows(tmp_path / name)


def test_other_bad_sources_have_a_clear_line(tmp_path, on_disk):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "broken.parquet").write_text("x")
    on_disk.write_rows(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{")
    for path, split, message in (
        (tmp_path / "a.txt", None, r"unknown kind of file '.txt'; expected one of .jsonl"),
        (tmp_path / "missing.jsonl", None, r"missing.jsonl: no such file"),
        (tmp_path / "missing", None, r"missing: no such file"),
        (tmp_path / "broken.parquet", None, r"cannot be read as parquet"),
        (tmp_path / "a.jsonl", "train", r"a file has no splits"),
        (tmp_path / "saved", None, r"cannot be read by datasets"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read_rows(path, split=split)
        assert "\n" not in str(caught.value)


def test_a_name_that_is_no_file_goes_to_the_hub_with_the_default_split(monkeypatch):
    calls = []

    def load_dataset(name, split):
        calls.append((name, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = read_rows("someone/reviews")
    assert calls == [("someone/reviews", "train")]
    assert rows[0].location == "someone/reviews[train]:row 1"


def test_a_hub_that_cannot_be_reached_is_explained(monkeypatch):
    def load_dataset(name, split):
        raise ConnectionError("Couldn't reach the Hub\nlong story")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        DataError, match=r"^someone/reviews: no such local file, and the hub .* Couldn't reach the Hub -"
    ):
        read_rows("someone/reviews")

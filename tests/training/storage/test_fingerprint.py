import json

import pytest

from rlhf.training.storage.fingerprint import content_digest, flattened, lengthened, without_later


def directory(path):
    (path / "train").mkdir(parents=True)
    (path / "top.json").write_text("{}")
    (path / "train" / "data.arrow").write_text("rows")
    return path


def test_content_counts_and_not_the_place(tmp_path):
    assert content_digest(str(directory(tmp_path / "a"))) == content_digest(str(directory(tmp_path / "b")))


def test_every_file_counts_however_deep_and_so_does_its_name(tmp_path):
    original = content_digest(str(directory(tmp_path / "a")))
    changed, renamed = directory(tmp_path / "b"), directory(tmp_path / "c")
    (changed / "train" / "data.arrow").write_text("other rows")
    (renamed / "train" / "data.arrow").rename(renamed / "train" / "more.arrow")
    assert len({original, content_digest(str(changed)), content_digest(str(renamed))}) == 3


def test_an_adapter_counts_with_its_base(tmp_path):
    base, adapter = directory(tmp_path / "base"), directory(tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = content_digest(str(adapter))
    (base / "top.json").write_text("[]")
    assert content_digest(str(adapter)) != before


def test_a_hub_name_stands_for_itself():
    assert content_digest("someone/some-model") == "someone/some-model"


def test_a_later_key_is_left_out_wherever_it_changes_nothing():
    given = {"optimizer": {"moments": "float32", "eps": 1.0}, "rewards": [{"early": False}, {"early": True}], "a": None}
    assert without_later(given) == {"optimizer": {"eps": 1.0}, "rewards": [{}, {"early": True}], "a": None}


def test_nested_keys_are_named_as_overrides_name_them():
    assert flattened({"a": 1, "b": {"c": [1, 2], "d": {"e": None}}}) == {"a": 1, "b.c": [1, 2], "b.d.e": None}


def test_a_run_is_longer_when_its_steps_are_more_and_all_else_is_equal():
    assert lengthened({"steps": 4, "a": 1}, {"steps": 8, "a": 1}) == "steps: 4 -> 8"
    assert lengthened({"steps": None, "epochs": 1}, {"steps": None, "epochs": 2}) == "epochs: 1 -> 2"
    for saved, now in (
        ({"steps": 8}, {"steps": 4}),
        ({"steps": 4}, {"steps": 4}),
        ({"steps": 4, "a": 1}, {"steps": 8, "a": 2}),
        ({"steps": 4, "epochs": 1}, {"steps": 4, "epochs": 2}),  # of PPO: passes over each batch
        ({"steps": None, "epochs": 1}, {"steps": 8, "epochs": None}),
        ({"steps": 4}, {"steps": 8, "a": None, "b": 1}),
    ):
        assert lengthened(saved, now) is None


@pytest.mark.parametrize(
    "text", ["", "[" * 20_000, "5", "{}", '{"base_model": true}', '{"base_model": "a\\u0000"}', "\udcff"]
)
def test_the_digest_of_an_adapter_does_not_fail_on_a_broken_note_of_its_base(tmp_path, text):
    adapter = directory(tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "/no/such/place"}))
    (adapter / "base_model.json").write_text(text, errors="surrogateescape")
    assert len(content_digest(str(adapter))) == 64


def test_adapters_that_name_each_other_as_their_base_have_a_digest(tmp_path):
    one, other = directory(tmp_path / "one"), directory(tmp_path / "other")
    for adapter, base in ((one, other), (other, one)):
        (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    (one / "top.json").write_text("[]")
    assert content_digest(str(one)) != content_digest(str(other))

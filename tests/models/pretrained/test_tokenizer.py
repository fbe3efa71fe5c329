"""Pad is never EOS, and no id is added where a special one is free."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, models
from transformers import PreTrainedTokenizerFast

from rlhf.errors import ConfigError
from rlhf.models.pretrained.tokenizer import (
    all_eos_ids,
    eos_ids,
    load_tokenizer,
    read_tokenizer,
    tokenizer_fingerprint,
    with_pad,
)


def _saved(tokenizer, path, **changes):
    tokenizer.save_pretrained(path)
    file = path / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    for key, value in changes.items():
        if value is None:
            settings.pop(key, None)
        else:
            settings[key] = value
    file.write_text(json.dumps(settings))
    return str(path)


def test_a_pad_token_that_differs_from_eos_stays(tiny_tokenizer, tmp_path):
    tokenizer = load_tokenizer(_saved(tiny_tokenizer, tmp_path, padding_side="left"))
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.padding_side) == (0, 2, "right")


@pytest.mark.parametrize("pad", [None, "<eos>"])
def test_without_a_pad_token_or_with_pad_as_eos_a_free_special_token_is_taken(tiny_tokenizer, tmp_path, pad):
    tokenizer = load_tokenizer(_saved(tiny_tokenizer, tmp_path, pad_token=pad))
    assert tokenizer.pad_token == "<pad>"
    assert len(tokenizer) == len(tiny_tokenizer)


def test_the_template_s_tokens_and_unk_are_taken_last(tiny_tokenizer, tmp_path):
    tiny_tokenizer.add_tokens([AddedToken("<spare>", special=True)], special_tokens=True)
    tiny_tokenizer.chat_template = "<bos>" + tiny_tokenizer.chat_template
    tokenizer = load_tokenizer(_saved(tiny_tokenizer, tmp_path / "a", pad_token="<eos>", bos_token="<pad>"))
    assert tokenizer.pad_token == "<spare>"
    tokenizer.save_pretrained(tmp_path / "b")
    assert load_tokenizer(str(tmp_path / "b")).pad_token == "<spare>"


def test_another_eos_of_the_generation_config_is_no_pad_token(tiny_tokenizer, tmp_path):
    path = _saved(tiny_tokenizer, tmp_path, pad_token="<eos>")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    assert load_tokenizer(path).pad_token == "<unk>"


def test_where_no_special_token_is_free_one_is_added(tmp_path):
    backend = Tokenizer(models.BPE(vocab={"<eos>": 0, "a": 1}, merges=[]))
    tokens = dict.fromkeys(("eos_token", "bos_token", "unk_token"), "<eos>")  # as GPT-2 has them
    PreTrainedTokenizerFast(tokenizer_object=backend, **tokens).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(str(tmp_path))
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer)) == (0, 2, 3)


def test_a_tokenizer_without_eos_is_refused(tiny_tokenizer, tmp_path):
    with pytest.raises(ConfigError, match="has no EOS token - set eos_token in its tokenizer_config.json"):
        load_tokenizer(_saved(tiny_tokenizer, tmp_path, eos_token=None))


def test_a_directory_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no tokenizer could be loaded"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    ("listed", "ids"),
    [(None, (2,)), ("{}", (2,)), ('{"eos_token_id": 7}', (2, 7)), ('{"eos_token_id": [9, 2]}', (2, 9))],
)
def test_every_eos_of_the_generation_config_ends_a_response(tiny_tokenizer, tmp_path, listed, ids):
    if listed is not None:
        (tmp_path / "generation_config.json").write_text(listed)
    assert eos_ids(str(tmp_path), tiny_tokenizer) == ids


def test_the_fingerprint_tells_vocabularies_and_special_tokens_apart(tiny_tokenizer, tmp_path):
    first = tokenizer_fingerprint(tiny_tokenizer)
    assert tokenizer_fingerprint(load_tokenizer(_saved(tiny_tokenizer, tmp_path))) == first
    tiny_tokenizer.pad_token = "<unk>"
    second = tokenizer_fingerprint(tiny_tokenizer)
    tiny_tokenizer.add_tokens(["word"])
    assert len({first, second, tokenizer_fingerprint(tiny_tokenizer)}) == 3


def test_a_tokenizer_in_memory_gets_what_a_loaded_one_has(tiny_tokenizer, tmp_path):
    path = _saved(tiny_tokenizer, tmp_path, pad_token="<eos>", padding_side="left")
    plain = read_tokenizer(path)
    assert plain.pad_token == "<eos>" and plain.padding_side == "left"
    assert tokenizer_fingerprint(with_pad(plain, "mine", None)) == tokenizer_fingerprint(load_tokenizer(path))
    assert all_eos_ids(plain, [7, 2]) == (2, 7) and all_eos_ids(plain, None) == (2,)
    plain.eos_token = None
    with pytest.raises(ConfigError, match="^mine: the tokenizer has no EOS token"):
        with_pad(plain, "mine", None)


def test_a_tokenizer_file_of_another_shape_is_refused(tiny_tokenizer, tmp_path):
    """The library raises Exception itself."""
    tiny_tokenizer.save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "version": None}))
    with pytest.raises(ConfigError, match="no tokenizer could be loaded"):
        load_tokenizer(str(tmp_path))

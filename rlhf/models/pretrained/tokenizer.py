"""Loading a tokenizer whose pad token is never its EOS."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlhf.errors import ConfigError
from rlhf.models.pretrained.chat_template import use_chat_template
from rlhf.models.pretrained.directory import check_directory, check_settings, read_object
from rlhf.models.pretrained.refusals import LOADING_ERRORS, offline


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """What the policy's token ids mean."""

    tokenizer: PreTrainedTokenizerBase
    """Its pad token never ends a response."""
    eos_ids: tuple[int, ...]
    """Every id that ends a response."""


def load_tokenizer(
    path: str,
    *,
    trust_remote_code: bool = False,
    chat_template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> PreTrainedTokenizerBase:
    """Load a tokenizer with an EOS token and a pad token that differs from it.

    A tokenizer without a pad token, or with pad = EOS, gets another special token of its vocabulary as pad, so that
    the embedding does not grow. If there is none, `<pad>` is added (`vocabulary.fit_vocabulary` makes room for it).

    Args:
        path: of the model.
        trust_remote_code: run Python code that comes with it.
        chat_template: file of a template in the place of its own; see `chat_template.use_chat_template`.
        chat_template_kwargs: values of the template's variables.

    Raises:
        ConfigError: the directory holds no tokenizer, the tokenizer has no EOS token, or a template does not fit.
    """
    tokenizer = with_pad(read_tokenizer(path, trust_remote_code=trust_remote_code), path, _listed_eos(path))
    return use_chat_template(tokenizer, chat_template, chat_template_kwargs)


def read_tokenizer(path: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer as it is, with or without EOS and pad.

    Raises:
        ConfigError: the directory holds no tokenizer, or does not exist.
    """
    check_directory(path)
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except LOADING_ERRORS as problem:
        line = offline(path) or [*str(problem).strip().splitlines(), type(problem).__name__][0][:200]
        raise ConfigError(f"{path}: no tokenizer could be loaded ({line}) - give a model directory") from None


def with_pad(
    tokenizer: PreTrainedTokenizerBase, name: str, listed_eos: int | list[int] | None
) -> PreTrainedTokenizerBase:
    """Give a tokenizer, in place, a pad token that ends no response, as `load_tokenizer` does.

    Args:
        tokenizer: pads on the right afterwards.
        name: for messages.
        listed_eos: what the model's generation config says ends a response.

    Raises:
        ConfigError: the tokenizer has no EOS token.
    """
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"{name}: the tokenizer has no EOS token - set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        ends = all_eos_ids(tokenizer, listed_eos)
        tokenizer.add_special_tokens({"pad_token": _free_token(tokenizer, ends) or "<pad>"})
    tokenizer.padding_side = "right"
    return tokenizer


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a sha256 over the vocabulary and the special tokens: if two are equal, ids mean the same."""
    special = sorted(tokenizer.special_tokens_map.items(), key=str)
    content = json.dumps([sorted(tokenizer.get_vocab().items()), special], default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def eos_ids(path: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Return every id that ends a response: the tokenizer's EOS and those of generation_config.json."""
    return all_eos_ids(tokenizer, _listed_eos(path))


def all_eos_ids(tokenizer: PreTrainedTokenizerBase, listed: int | list[int] | None) -> tuple[int, ...]:
    """Return the tokenizer's EOS and what a generation config lists, in order."""
    ids = {int(tokenizer.eos_token_id), *(listed if isinstance(listed, list) else [] if listed is None else [listed])}
    return tuple(sorted(ids))


def _listed_eos(path: str) -> int | list[int] | None:
    file = Path(path) / "generation_config.json"
    check_settings(file)
    listed: int | list[int] | None = read_object(file).get("eos_token_id")
    return listed


def _free_token(tokenizer: PreTrainedTokenizerBase, ends: tuple[int, ...]) -> str | None:
    """Return the special token that serves best as a pad token: never an EOS or the BOS.

    A token with `pad` in its name comes first, then one that the chat template does not write. The unknown token comes
    last: text may hold it, and a classifier reads its score before the trailing pad tokens.
    """
    template = str(tokenizer.chat_template or "")

    def rank(index: int, token: str) -> tuple[bool, bool, bool, int]:
        return "pad" not in token.lower(), token == tokenizer.unk_token, token in template, index

    used = {*ends, tokenizer.bos_token_id}
    spare = {index: str(token) for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    ranked = sorted(rank(index, token) for index, token in spare.items() if index not in used)
    return spare[ranked[0][-1]] if ranked else None

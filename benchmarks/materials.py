"""The inputs of all sides: the model, a reward model from its weights, and texts of known lengths in tokens."""

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from rlhf.models.pretrained.loading import load_scalar_lm
from rlhf.models.pretrained.quiet import quiet_transformers
from rlhf.models.pretrained.tokenizer import load_tokenizer

DEFAULT_MODEL = "fetch:smollm2-135m-instruct"
WORDS = (
    " the a film was very good and bad it story of with one time people life actor scene plot great long end way "
    "music dark light day night work world house man woman child year hand part place case week company system"
)
"""Common words: each is one token for most tokenizers. Where too few are, letters replace them."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


def make_reward_model(policy: str, directory: Path, seed: int) -> str:
    """Save a sequence classifier with one label, from the policy's weights and a head drawn from `seed`."""
    with quiet_transformers():
        load_scalar_lm(policy, seed=seed, new_head=True).save_pretrained(directory)
    for name in TOKENIZER_FILES:
        if (Path(policy) / name).is_file():
            shutil.copy(Path(policy) / name, directory / name)
    return str(directory)


class Texts:
    """Random texts that are a given number of tokens long, as text and as the ids that every side reads."""

    def __init__(self, policy: str, seed: int) -> None:
        self._tokenizer = load_tokenizer(policy)
        self._random = random.Random(seed)  # noqa: S311  # reproducible texts, not a secret
        self._pieces = _single_tokens(self._tokenizer)

    def of_lengths(self, lengths: Sequence[int]) -> tuple[list[str], list[list[int]]]:
        """Return texts and their token ids, one of each length.

        Raises:
            ValueError: the tokenizer merges the words into another number of tokens.
        """
        texts = ["".join(self._random.choices(self._pieces, k=length)) for length in lengths]
        ids = [list(self._tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        if [len(row) for row in ids] != list(lengths):
            raise ValueError("the model's tokenizer merges single words into other tokens; choose another model")
        return texts, ids


def _single_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    words = [" " + word for word in WORDS.split()]
    for pieces in (words, list("abcdefghijklmnopqrstuvwxyz")):
        found = [piece for piece in pieces if len(tokenizer.encode(piece, add_special_tokens=False)) == 1]
        if len(found) > len(pieces) // 2:
            return found
    raise ValueError("the model's tokenizer knows neither common words nor letters as single tokens")

"""Text to token ids: one BOS if the tokenizer adds it, one EOS, and a text that follows another as its continuation."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rlhf.data.conversations.chat import Chat
from rlhf.data.records import Message, Tools
from rlhf.errors import ConfigError


class Encoder:
    """A tokenizer with our conventions for prompts, responses and conversations."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, append_eos: bool) -> None:
        """Find out what the tokenizer adds by itself.

        Args:
            tokenizer: of the model that will read the ids.
            append_eos: end each response with one EOS, even if the text already ends with it.

        Raises:
            ConfigError: `append_eos` is set, but the tokenizer has no EOS.
        """
        self._tokenizer = tokenizer
        self._append_eos = append_eos
        self._eos_id = tokenizer.eos_token_id
        self.chat = Chat(tokenizer)
        if append_eos and self._eos_id is None:
            name = tokenizer.name_or_path or "the tokenizer"
            raise ConfigError(f"{name}: the tokenizer has no EOS token - set eos_token in tokenizer_config.json")
        bos_id = tokenizer.bos_token_id
        adds_bos = bos_id is not None and list(tokenizer("a")["input_ids"])[:1] == [bos_id]
        self._bos_ids = [bos_id] if adds_bos else []
        # Metaspace tokenizers put a space before the first word of a text, so a part has other ids alone.
        self._start_differs = self.bare("a\na")[len(self.bare("a\n")) :] != self.bare("a")

    @property
    def bos_ids(self) -> list[int]:
        """What the tokenizer puts before plain text by default: the BOS, or nothing."""
        return self._bos_ids

    def bare(self, text: str) -> list[int]:
        """Return the ids of `text`, without special tokens that the text does not spell out."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def following(self, earlier: str, text: str) -> list[int]:
        """Return the ids of `text` where it comes after `earlier`, whose own ids stay what they are."""
        if self._start_differs and earlier:
            known, both = self.bare(earlier), self.bare(earlier + text)
            if both[: len(known)] == known:
                return both[len(known) :]
        return self.bare(text)

    def prompt(self, text: str) -> list[int]:
        """Return the ids of plain text that starts a sequence: with one BOS, if the tokenizer adds it by default."""
        ids = self.bare(text)
        starts_with_bos = ids[:1] == self._bos_ids
        return ids if starts_with_bos else self._bos_ids + ids

    def response(self, text: str) -> list[int]:
        """Return the ids of plain text that ends a sequence."""
        return self.with_eos(self.bare(text))

    def with_eos(self, ids: list[int]) -> list[int]:
        """End `ids` with one EOS; drop white space that a chat template writes after it."""
        end = self.end_of_turn(ids)
        if end is not None and not str(self._tokenizer.decode(ids[end:])).strip():
            while ids[end - 2 : end - 1] == [self._eos_id]:
                end -= 1
            return ids[:end]
        return [*ids, self._eos_id] if self._append_eos else ids

    def end_of_turn(self, ids: Sequence[int]) -> int | None:
        """Return the place after the last EOS, None without any."""
        if self._eos_id is None or self._eos_id not in ids:
            return None
        return len(ids) - list(ids)[::-1].index(self._eos_id)

    def render(
        self, messages: Sequence[Message], location: str, *, add_generation_prompt: bool, tools: Tools = None
    ) -> str:
        """Return what the chat template makes of a conversation; see `Chat.render`."""
        return self.chat.render(messages, location, tools=tools, add_generation_prompt=add_generation_prompt)

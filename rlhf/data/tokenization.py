"""Rows to token ids: examples for the supervised loss, preference pairs, and prompts to sample from.

Plain prompts and responses are tokenized separately and joined, so the ids of a prompt are the same with and without
its response. For conversations see `encoder.Encoder.conversation`.
"""

from collections.abc import Callable, Iterable
from typing import Literal

from transformers import PreTrainedTokenizerBase

from rlhf.data import cells
from rlhf.data.encoder import Encoder
from rlhf.data.intake import OnEmpty, Outcome, dropped_as_empty, prepared, refused_as_empty
from rlhf.data.over_long import OverLong, fate_of, fitted
from rlhf.data.reading.dataset_type import DatasetType, untyped
from rlhf.data.reading.typed_rows import in_our_columns, typed
from rlhf.data.records import Example, Pair, Prepared, Prompt, Row
from rlhf.data.sequences import TokenSequence, prompt_ids_of, prompt_of, token_sequence
from rlhf.errors import ConfigError

_EXAMPLES = (DatasetType.PROMPT_COMPLETION, DatasetType.MESSAGES, DatasetType.TEXT)
LossOn = Literal["completion", "assistant", "all"]


def prepare_examples(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    over_long: OverLong = "drop",
    loss_on: LossOn = "completion",
    append_eos: bool = True,
    on_empty: OnEmpty = "error",
) -> Prepared[Example]:
    """Turn rows of text, messages, or prompt and completion into examples.

    Args:
        rows: all of one type, in any known format; read one by one.
        tokenizer: of the model.
        max_length: tokens of an example.
        over_long: what to do with longer ones; only prompts are ever cut.
        loss_on: "completion" (for messages, the last answer; for text, all of it), "assistant" (every answer of a
            conversation) or "all" (every token but the first).
        append_eos: end each example with one EOS.
        on_empty: what to do with rows with an empty prompt, completion or message.

    Raises:
        DataError: a row cannot be used, or none is left.
        ConfigError: the tokenizer lacks EOS or chat template, or `loss_on` is "assistant" for plain text.
    """
    known = typed(rows, _EXAMPLES)
    kind = known.kind
    encoder = Encoder(tokenizer, append_eos=append_eos)

    def make(row: Row) -> Outcome[Example]:
        fields = [cells.text_or_messages(row, name) for name in _columns_of(kind)]
        if loss_on == "assistant" and not isinstance(fields[-1], list):
            raise ConfigError(f"{row.location}: loss_on: assistant needs messages, found text - set it to completion")
        if refused_as_empty(fields, row, on_empty):
            return Outcome(None, "dropped_empty")
        sequence = token_sequence(fields, encoder, row, is_last_answer=kind is DatasetType.MESSAGES)
        if not sequence.response_ids:
            return dropped_as_empty(row, on_empty)
        return _example(sequence, encoder, row, max_length=max_length, over_long=over_long, loss_on=loss_on)

    return prepared(known.rows, make, known.description)


def prepare_pairs(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    over_long: OverLong = "drop",
    append_eos: bool = True,
    on_empty: OnEmpty = "error",
) -> Prepared[Pair]:
    """Turn rows of chosen and rejected, with or without prompt, into pairs of sequences.

    Both sequences keep the same prompt: if the longer response requires a cut, it is cut for both. Pairs of two equal
    sequences teach nothing, so they are dropped and counted. The arguments are those of `prepare_examples`.

    Raises:
        DataError: a row cannot be used, or none is left.
        ConfigError: the tokenizer lacks EOS or chat template.
    """
    known = typed(rows, [DatasetType.PREFERENCE])
    encoder = Encoder(tokenizer, append_eos=append_eos)

    def make(row: Row) -> Outcome[Pair]:
        prompt = [cells.text_or_messages(row, "prompt")] if "prompt" in row.values else []
        answers = [cells.text_or_messages(row, name) for name in ("chosen", "rejected")]
        margin = cells.margin(row)
        if refused_as_empty([*prompt, *answers], row, on_empty):
            return Outcome(None, "dropped_empty")
        chosen, rejected = (token_sequence([*prompt, answer], encoder, row, is_last_answer=False) for answer in answers)
        if not (chosen.response_ids and rejected.response_ids):
            return dropped_as_empty(row, on_empty)
        if chosen == rejected:
            return Outcome(None, "dropped_equal")
        longer = max(len(chosen.response_ids), len(rejected.response_ids))
        kept = fitted(chosen.prompt_ids, longer, encoder, row, max_length=max_length, over_long=over_long)
        if kept is None:
            return Outcome(None, "dropped_long")
        pair = Pair(tuple(kept + chosen.response_ids), tuple(kept + rejected.response_ids), margin)
        return Outcome(pair, fate_of(kept, chosen.prompt_ids))

    return prepared(known.rows, make, known.description)


def prepare_prompts(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    over_long: OverLong = "drop",
    on_empty: OnEmpty = "error",
) -> Prepared[Prompt]:
    """Turn rows that have a prompt into prompts to sample from; a conversation gets its generation prompt.

    `max_length` counts the tokens of the prompt alone. The other arguments are those of `prepare_examples`.

    Raises:
        DataError: a row cannot be used, or none is left.
        ConfigError: the tokenizer lacks a chat template for messages.
    """
    known = typed(rows, [DatasetType.PROMPT])
    make = prompt_maker(tokenizer, max_length=max_length, over_long=over_long, on_empty=on_empty)
    return prepared(known.rows, make, known.description)


def prompt_maker(
    tokenizer: PreTrainedTokenizerBase, *, max_length: int, over_long: OverLong, on_empty: OnEmpty
) -> Callable[[Row], Outcome[Prompt]]:
    """Return what `prepare_prompts` does to each row."""
    encoder = Encoder(tokenizer, append_eos=False)

    def make(given: Row) -> Outcome[Prompt]:
        row = in_our_columns(given, [DatasetType.PROMPT]).row
        if "prompt" not in row.values:
            raise untyped(row, [DatasetType.PROMPT])
        raw = cells.text_or_messages(row, "prompt")
        if refused_as_empty([raw], row, on_empty):
            return Outcome(None, "dropped_empty")
        text, ids = prompt_ids_of(raw, encoder, row)
        if not ids:
            return dropped_as_empty(row, on_empty)
        kept = fitted(ids, 0, encoder, row, max_length=max_length, over_long=over_long)
        if kept is None:
            return Outcome(None, "dropped_long")
        return Outcome(prompt_of(row, raw, text, kept), fate_of(kept, ids))

    return make


def _columns_of(kind: DatasetType) -> tuple[str, ...]:
    return {
        DatasetType.TEXT: ("text",),
        DatasetType.MESSAGES: ("messages",),
        DatasetType.PROMPT_COMPLETION: ("prompt", "completion"),
    }[kind]


def _example(
    sequence: TokenSequence, encoder: Encoder, row: Row, *, max_length: int, over_long: OverLong, loss_on: LossOn
) -> Outcome[Example]:
    num_prompt = len(sequence.prompt_ids)
    mask = [flag and (loss_on != "completion" or i >= num_prompt) for i, flag in enumerate(sequence.emitted)]
    # Answers that are trained on may not be cut, so only what precedes the first one counts as the prompt here.
    uncut = mask.index(True) if loss_on == "assistant" else num_prompt
    ids = sequence.prompt_ids + sequence.response_ids
    kept = fitted(ids[:uncut], len(ids) - uncut, encoder, row, max_length=max_length, over_long=over_long)
    if kept is None:
        return Outcome(None, "dropped_long")
    kept_mask = [False] * len(kept) + mask[uncut:]
    if loss_on == "all":
        kept_mask = [True] * len(kept_mask)
    example = Example(tuple(kept + ids[uncut:]), (False, *kept_mask[1:]))
    if not any(example.loss_mask):
        return Outcome(None, "dropped_empty")  # one token of text: nothing is left to predict
    return Outcome(example, fate_of(kept, ids[:uncut]))

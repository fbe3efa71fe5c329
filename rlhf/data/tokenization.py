"""Rows to token ids: examples for the supervised loss, preference pairs, and prompts to sample from.

Plain prompts and responses are tokenized separately and joined, so the ids of a prompt are the same with and without
its response. For conversations see `answers.py`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, Unpack

from transformers import PreTrainedTokenizerBase

from rlhf.data import cells
from rlhf.data.conversations.conversation import TokenSequence
from rlhf.data.encoder import Encoder
from rlhf.data.fitting import Fitting, FittingKeys
from rlhf.data.intake import (
    Outcome,
    alike,
    dropped_as_empty,
    flattened,
    joined,
    refused_as_empty,
    tolerant,
    with_trailing,
)
from rlhf.data.over_long import fate_of, fitted
from rlhf.data.reading.dataset_type import DatasetType, untyped
from rlhf.data.reading.typed_rows import in_our_columns, typed
from rlhf.data.records import Example, Pair, Prepared, Prompt, Row
from rlhf.data.sequences import learnt_sequences, prompt_ids_of, prompt_of, token_sequence, with_one_prompt
from rlhf.data.token_ids import TokenIds
from rlhf.errors import ConfigError

_EXAMPLES = (DatasetType.PROMPT_COMPLETION, DatasetType.MESSAGES, DatasetType.TEXT)
LossOn = Literal["completion", "assistant", "all"]


def prepare_examples(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    loss_on: LossOn = "completion",
    append_eos: bool = True,
    **fitting: Unpack[FittingKeys],
) -> Prepared[Example]:
    """Turn rows of text, messages, or prompt and completion into examples.

    Args:
        rows: all of one type, in any known format; read one by one.
        tokenizer: of the model.
        loss_on: "completion" (for messages, the last answer; for text, all of it), "assistant" (every answer of a
            conversation; one example an answer, with a count, where the template rewrites earlier turns) or "all"
            (every token but the first).
        append_eos: end each example with one EOS.
        **fitting: see `Fitting`.

    Raises:
        DataError: a row cannot be used, or none is left.
        ConfigError: the tokenizer lacks EOS or chat template, or `loss_on` is "assistant" for plain text.
    """
    fit = Fitting(**fitting)
    known = typed(rows, _EXAMPLES, fit.on_bad_row)
    kind = known.kind
    encoder = Encoder(tokenizer, append_eos=append_eos)

    def make(row: Row) -> Outcome[list[Example]]:
        fields = [fit.field(row, name) for name in _columns_of(kind)]
        if loss_on == "assistant" and not isinstance(fields[-1], list):
            raise ConfigError(f"{row.location}: loss_on: assistant needs messages, found text - set it to completion")
        if refused_as_empty(fields, row, fit.on_empty):
            return Outcome(None, "dropped_empty")
        if loss_on == "all" and len(fields) == 2:
            made = [token_sequence(fields, encoder, row)]
        else:
            made = learnt_sequences(fields, encoder, row, every_answer=loss_on == "assistant")
        if not all(sequence.response_ids for sequence in made):
            return dropped_as_empty(row, fit.on_empty)
        cut = partial(fitted, encoder=encoder, row=row, max_length=fit.max_length, over_long=fit.over_long)
        outcome = joined([_example(sequence, cut, learns_all=loss_on == "all") for sequence in made])
        return with_trailing(outcome, fields[-1:])

    return flattened(alike(known, make, fit.on_bad_row))


def prepare_pairs(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    append_eos: bool = True,
    **fitting: Unpack[FittingKeys],
) -> Prepared[Pair]:
    """Turn rows of chosen and rejected, with or without prompt, into pairs of sequences.

    Both sequences keep the same prompt: if the longer response requires a cut, it is cut for both. Pairs of two equal
    sequences teach nothing, so they are dropped and counted. The arguments are those of `prepare_examples`.

    Raises:
        DataError: a row cannot be used, or none is left.
        ConfigError: the tokenizer lacks EOS or chat template.
    """
    fit = Fitting(**fitting)
    known = typed(rows, [DatasetType.PREFERENCE], fit.on_bad_row)
    encoder = Encoder(tokenizer, append_eos=append_eos)

    def make(row: Row) -> Outcome[Pair]:
        prompt = [fit.field(row, "prompt")] if "prompt" in row.values else []
        answers = [fit.field(row, name) for name in ("chosen", "rejected")]
        margin = cells.margin(row)
        if refused_as_empty([*prompt, *answers], row, fit.on_empty):
            return Outcome(None, "dropped_empty")
        chosen, rejected = with_one_prompt(*(token_sequence([*prompt, answer], encoder, row) for answer in answers))
        if not (chosen.response_ids and rejected.response_ids):
            return dropped_as_empty(row, fit.on_empty)
        if chosen == rejected:
            return Outcome(None, "dropped_equal")
        longer = max(len(chosen.response_ids), len(rejected.response_ids))
        kept = fitted(chosen.prompt_ids, longer, encoder, row, max_length=fit.max_length, over_long=fit.over_long)
        if kept is None:
            return Outcome(None, "dropped_long")
        pair = Pair(TokenIds(kept + chosen.response_ids), TokenIds(kept + rejected.response_ids), margin)
        return with_trailing(Outcome(pair, fate_of(kept, chosen.prompt_ids)), answers)

    return alike(known, make, fit.on_bad_row)


def prepare_prompts(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    **fitting: Unpack[FittingKeys],
) -> Prepared[Prompt]:
    """Turn rows that have a prompt into prompts to sample from; a conversation gets its generation prompt.

    `max_length` counts the tokens of the prompt alone. The other arguments are those of `prepare_examples`.

    Raises:
        DataError: a row cannot be used, or none is left.
        ConfigError: the tokenizer lacks a chat template for messages.
    """
    fit = Fitting(**fitting)
    known = typed(rows, [DatasetType.PROMPT], fit.on_bad_row)
    return alike(known, _prompt_maker(tokenizer, fit), fit.on_bad_row)


def prompt_maker(
    tokenizer: PreTrainedTokenizerBase,
    **fitting: Unpack[FittingKeys],
) -> Callable[[Row], Outcome[Prompt]]:
    """Return what `prepare_prompts` does to each row, for rows that come one by one."""
    fit = Fitting(**fitting)
    make = _prompt_maker(tokenizer, fit)
    return tolerant(lambda given: make(in_our_columns(given, [DatasetType.PROMPT]).row), fit.on_bad_row)


def _prompt_maker(tokenizer: PreTrainedTokenizerBase, fit: Fitting) -> Callable[[Row], Outcome[Prompt]]:
    """Return what is done to a row in our columns."""
    encoder = Encoder(tokenizer, append_eos=False)

    def make(row: Row) -> Outcome[Prompt]:
        if "prompt" not in row.values:
            raise untyped(row, [DatasetType.PROMPT])
        raw = fit.field(row, "prompt")
        if refused_as_empty([raw], row, fit.on_empty):
            return Outcome(None, "dropped_empty")
        text, ids = prompt_ids_of(raw, encoder, row)
        if not ids:
            return dropped_as_empty(row, fit.on_empty)
        kept = fitted(ids, 0, encoder, row, max_length=fit.max_length, over_long=fit.over_long)
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
    sequence: TokenSequence, cut: Callable[[list[int], int], list[int] | None], *, learns_all: bool
) -> Outcome[Example]:
    kept = cut(sequence.prompt_ids, len(sequence.response_ids))
    if kept is None:
        return Outcome(None, "dropped_long")
    mask = [False] * len(kept) + sequence.emitted[len(sequence.prompt_ids) :]
    if learns_all:
        mask = [True] * len(mask)
    example = Example(TokenIds(kept + sequence.response_ids), (False, *mask[1:]))
    if not any(example.loss_mask):
        return Outcome(None, "dropped_empty")  # one token of text: nothing is left to predict
    return Outcome(example, fate_of(kept, sequence.prompt_ids))

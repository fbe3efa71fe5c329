"""Rows to demonstrations: a prompt as sampling sees it, and a whole response to it."""

from collections.abc import Sequence
from typing import Unpack

from transformers import PreTrainedTokenizerBase

from rlhf.data.encoder import Encoder
from rlhf.data.fitting import Fitting, FittingKeys
from rlhf.data.intake import (
    Outcome,
    common_type,
    dropped_as_empty,
    of_type,
    prepared,
    refused_as_empty,
    tolerant,
    with_trailing,
)
from rlhf.data.over_long import fate_of, fitted
from rlhf.data.reading.dataset_type import DatasetType, missing_columns
from rlhf.data.records import Demonstration, Prepared, Row
from rlhf.data.sequences import prompt_ids_of, prompt_of, token_sequence

_RESPONSES = {DatasetType.PROMPT_COMPLETION: "completion", DatasetType.PREFERENCE: "chosen"}
"""The column that holds the response, by the type of the rows."""


def prepare_demonstrations(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    **fitting: Unpack[FittingKeys],
) -> Prepared[Demonstration]:
    """Turn rows of prompt and completion, or of prompt, chosen and rejected, into demonstrations.

    Args:
        rows: all of one type.
        tokenizer: of the policy.
        **fitting: see `Fitting`; `max_length` counts prompt and response together.

    Raises:
        DataError: a row cannot be used, or none is left.
        ConfigError: the tokenizer lacks EOS or chat template.
    """
    fit = Fitting(**fitting)
    kind, typical = common_type(rows, fit.on_bad_row)
    column = _RESPONSES.get(kind)
    if column is None or "prompt" not in typical.values:
        why = " of a demonstration (or {prompt, chosen, rejected})"
        raise missing_columns(typical, ("prompt", "completion"), why)
    encoder = Encoder(tokenizer, append_eos=True)

    def make(row: Row) -> Outcome[Demonstration]:
        if "prompt" not in row.values:
            raise missing_columns(row, ("prompt", column))
        raw, response = fit.field(row, "prompt"), fit.field(row, column)
        if refused_as_empty([raw, response], row, fit.on_empty):
            return Outcome(None, "dropped_empty")
        text, prompt_ids = prompt_ids_of(raw, encoder, row)
        response_ids = token_sequence([raw, response], encoder, row).response_ids
        if not (prompt_ids and response_ids):
            return dropped_as_empty(row, fit.on_empty)
        kept = fitted(prompt_ids, len(response_ids), encoder, row, max_length=fit.max_length, over_long=fit.over_long)
        if kept is None:
            return Outcome(None, "dropped_long")
        demonstration = Demonstration(prompt_of(row, raw, text, kept), tuple(response_ids))
        return with_trailing(Outcome(demonstration, fate_of(kept, prompt_ids)), [response])

    return prepared(rows, tolerant(of_type(typical, make), fit.on_bad_row))

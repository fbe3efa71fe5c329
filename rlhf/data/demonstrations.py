"""Rows to demonstrations: a prompt as sampling sees it, and a whole response to it."""

from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

from rlhf.data import cells
from rlhf.data.encoder import Encoder
from rlhf.data.intake import OnEmpty, Outcome, dropped_as_empty, prepared, refused_as_empty
from rlhf.data.over_long import OverLong, fate_of, fitted
from rlhf.data.reading.dataset_type import DatasetType, missing_columns
from rlhf.data.reading.typed_rows import typed
from rlhf.data.records import Demonstration, Prepared, Row
from rlhf.data.sequences import prompt_ids_of, prompt_of, token_sequence

_RESPONSES = {DatasetType.PROMPT_COMPLETION: "completion", DatasetType.PREFERENCE: "chosen"}
"""The column that holds the response, by the type of the rows."""


def prepare_demonstrations(
    rows: Iterable[Row],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    over_long: OverLong = "drop",
    on_empty: OnEmpty = "error",
) -> Prepared[Demonstration]:
    """Turn rows of prompt and completion, or of prompt, chosen and rejected, into demonstrations.

    Args:
        rows: all of one type.
        tokenizer: of the policy.
        max_length: tokens of prompt and response together.
        over_long: what to do with longer ones; only prompts are ever cut.
        on_empty: what to do with rows with an empty prompt or response.

    Raises:
        DataError: a row cannot be used, or none is left.
        ConfigError: the tokenizer lacks EOS or chat template.
    """
    known = typed(rows, _RESPONSES)
    column = _RESPONSES[known.kind]
    encoder = Encoder(tokenizer, append_eos=True)

    def make(row: Row) -> Outcome[Demonstration]:
        if "prompt" not in row.values:
            raise missing_columns(row, ("prompt", column), " of a demonstration")
        raw, response = cells.text_or_messages(row, "prompt"), cells.text_or_messages(row, column)
        if refused_as_empty([raw, response], row, on_empty):
            return Outcome(None, "dropped_empty")
        text, prompt_ids = prompt_ids_of(raw, encoder, row)
        response_ids = token_sequence([raw, response], encoder, row, is_last_answer=False).response_ids
        if not (prompt_ids and response_ids):
            return dropped_as_empty(row, on_empty)
        kept = fitted(prompt_ids, len(response_ids), encoder, row, max_length=max_length, over_long=over_long)
        if kept is None:
            return Outcome(None, "dropped_long")
        demonstration = Demonstration(prompt_of(row, raw, text, kept), tuple(response_ids))
        return Outcome(demonstration, fate_of(kept, prompt_ids))

    return prepared(known.rows, make, known.description)

"""Rows from files or the hub, as typed records of token ids, and batches of them."""

from rlhf.data.batching import collate_examples, collate_pairs, collate_prompts
from rlhf.data.reading.dataset_type import DatasetType
from rlhf.data.reading.rows import read_rows, stream_rows
from rlhf.data.reading.typed_rows import detect_type
from rlhf.data.records import Example, Message, Pair, Prepared, Prompt, Row
from rlhf.data.tokenization import prepare_examples, prepare_pairs, prepare_prompts

__all__ = [
    "DatasetType",
    "Example",
    "Message",
    "Pair",
    "Prepared",
    "Prompt",
    "Row",
    "collate_examples",
    "collate_pairs",
    "collate_prompts",
    "detect_type",
    "prepare_examples",
    "prepare_pairs",
    "prepare_prompts",
    "read_rows",
    "stream_rows",
]

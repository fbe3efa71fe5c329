"""Whether a model has an embedding for every id of a tokenizer, with room for a pad token that was added."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.errors import ConfigError


def fit_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Grow the embedding by a row if `load_tokenizer` had to add a pad token (GPT-2), and refuse a mismatch.

    Raises:
        ConfigError: the tokenizer has more ids than the model has embeddings; with both sizes.
    """
    rows = num_embeddings(model)
    if len(tokenizer) == rows + 1 and tokenizer.pad_token_id == rows:
        _add_mean_row(model)
        return
    if len(tokenizer) > rows:
        raise ConfigError(
            f"{path}: the tokenizer has {len(tokenizer)} ids, the model {rows} embeddings - they do not belong together"
        )


def num_embeddings(model: PreTrainedModel) -> int:
    """Return the rows of the input embedding."""
    return len(model.get_input_embeddings().weight)  # type: ignore[arg-type]  # a module's attribute may be anything


@torch.no_grad()
def _add_mean_row(model: PreTrainedModel) -> None:
    """Add a row that is the mean of all others: its logit is their mean, so that the new token is never likely."""
    model.resize_token_embeddings(num_embeddings(model) + 1, mean_resizing=False)
    output = model.get_output_embeddings() if model.can_generate() else None
    tables = [model.get_input_embeddings().weight]
    if output is not None:
        tables += [table for table in (output.weight, output.bias) if table is not None]
    for table in tables:
        table[-1] = table[:-1].mean(0)  # type: ignore[index,operator]  # as above

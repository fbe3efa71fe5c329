"""Whether a model and a tokenizer belong together: an embedding for every id, and ids that mean the same tokens."""

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rlhf.errors import ConfigError
from rlhf.models.pretrained.refusals import LOADING_ERRORS
from rlhf.models.pretrained.tokenizer import tokenizer_fingerprint


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


def check_tokens(tokenizer: PreTrainedTokenizerBase, source: str, role: str) -> None:
    """Refuse a tokenizer whose ids mean other tokens than those a loaded model was saved with.

    Special and added tokens may be renamed or be new. A model whose tokenizer is not on this machine passes.

    Args:
        tokenizer: what the model is given to read.
        source: where the model says that it was loaded from.
        role: of the model, for the message.

    Raises:
        ConfigError: names a token and its two ids, and both fingerprints.
    """
    own = _saved_with(source)
    if own is None:
        return
    ours, theirs = tokenizer.get_vocab(), own.get_vocab()
    added = {*tokenizer.added_tokens_decoder, *own.added_tokens_decoder}
    named = {index: token for token, index in ours.items()}
    for token, index in sorted(theirs.items(), key=lambda pair: pair[1]):
        moved = ours.get(token, index) != index
        if moved or (index not in added and named.get(index, token) != token):
            here = f"{token!r} has id {ours[token]}" if moved else f"id {index} is {named[index]!r}"
            raise ConfigError(
                f"{role}: the tokenizer ({len(tokenizer)} ids, {tokenizer_fingerprint(tokenizer)[:8]}) is not that of "
                f"{source} ({len(own)} ids, {tokenizer_fingerprint(own)[:8]}): {here}, there {token!r} has id {index} "
                "- give the model's own tokenizer"
            )


def _saved_with(source: str) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer that lies with a model on this machine, None where there is none."""
    if not source:
        return None
    try:
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True)
    except LOADING_ERRORS:
        return None

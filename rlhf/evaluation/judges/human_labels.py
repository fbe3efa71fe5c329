"""The gold judges: fitted on human labels that no training stage has seen."""

from pathlib import Path

import numpy as np
import torch

from rlhf.config.evaluate import EmbeddingsSection, GoldSection
from rlhf.config.shared import DataSection
from rlhf.errors import CheckpointError, DataError
from rlhf.evaluation.judges.embeddings import EmbeddingJudge, Encoder, Fitted
from rlhf.evaluation.judges.gold import INVERSE_REGULARISATION, GoldJudge
from rlhf.fetch import cache_home, resolve
from rlhf.stage.frame import load_rows
from rlhf.training.storage.atomic import write_output
from rlhf.training.storage.fingerprint import content_digest, json_digest

VERSION = 1
"""Of the judge on embeddings: increased when its code changes what is fitted, so that no older one is read."""


Labelled = tuple[list[str], list[int]]
"""Texts, and the label of each: 0 or 1."""


def train_gold_judge(section: GoldSection) -> GoldJudge:
    """Fit the gold judge, and print the share of held-out human texts on which it agrees with the author.

    Raises:
        DataError: a row lacks text or label, the two files share a text, or all labels are the same.
        ConfigError: scikit-learn is not installed.
    """
    print("gold judge: fitting on human labels that no training stage has seen", flush=True)
    texts, labels = labelled_texts(section.train, section.limit)
    heldout, truth = labelled_texts(section.heldout, section.limit)
    penalties = {"fluency_penalty": section.fluency_penalty, "repetition_penalty": section.repetition_penalty}
    try:
        judge = GoldJudge.train(texts, labels, heldout, **penalties)
    except ValueError as problem:
        raise DataError(f"gold: {section.train} and {section.heldout}: {problem}") from problem
    right = float(np.mean(judge.verdict(heldout) == np.array(truth, dtype=bool)))
    print(f"gold judge: agrees with the author on {right:.1%} of {len(heldout)} held-out human texts", flush=True)
    return judge


def train_embedding_judge(
    section: GoldSection, embeddings: EmbeddingsSection, device: torch.device, max_tokens: int
) -> EmbeddingJudge:
    """Fit the judge on embeddings, or read it from the cache, and print its accuracy.

    Args:
        section: where the human texts are.
        embeddings: which encoder reads how many of them.
        device: where.
        max_tokens: padded tokens of one forward pass.

    Raises:
        DataError: as for the gold judge.
        ConfigError: there is no such encoder, or scikit-learn is not installed.
    """
    path = resolve(embeddings.model)
    encoder = Encoder.load(path, device)
    train, heldout = embedded_texts(section, embeddings)
    kept = _place(path, train, heldout)
    fitted = Fitted.read(kept)
    if fitted is not None:
        judge = EmbeddingJudge(encoder, fitted, max_tokens)
    else:
        num = len(train[0]) + len(heldout[0])
        print(f"embedding judge: {embeddings.model} reads {num} human texts, once for all comparisons", flush=True)
        try:
            judge = EmbeddingJudge.train(encoder, max_tokens, train, heldout)
        except ValueError as problem:
            raise DataError(f"gold: {section.train} and {section.heldout}: {problem}") from problem
        _keep(judge.fitted, kept)
    found = judge.fitted
    agrees = f"agrees with the author on {found.accuracy:.1%} of {found.num_heldout} held-out human texts"
    print(f"embedding judge: {agrees}", flush=True)
    return judge


def embedded_texts(section: GoldSection, embeddings: EmbeddingsSection) -> tuple[Labelled, Labelled]:
    """Return the human texts on which the judge on embeddings is fitted, and those held out.

    Raises:
        DataError: a row lacks text or label.
    """
    train = labelled_texts(section.train, _smaller(section.limit, embeddings.train_limit))
    return train, labelled_texts(section.heldout, _smaller(section.limit, embeddings.heldout_limit))


def is_kept(embeddings: EmbeddingsSection, train: Labelled, heldout: Labelled) -> bool:
    """Whether the cache holds a judge on embeddings that was fitted on these texts."""
    return Fitted.read(_place(resolve(embeddings.model), train, heldout)) is not None


def _place(encoder: str, train: Labelled, heldout: Labelled) -> Path:
    """Return where a judge on embeddings is kept; `encoder` is a directory or a hub name."""
    mark = json_digest([VERSION, content_digest(encoder), train, heldout, INVERSE_REGULARISATION])
    return cache_home() / "judges" / f"{mark}.json"


def _keep(fitted: Fitted, path: Path) -> None:
    try:
        write_output(path, fitted.to_json())
    except CheckpointError as problem:
        print(f"embedding judge: not kept for the next comparison: {problem}", flush=True)


def _smaller(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def labelled_texts(path: str, limit: int | None) -> Labelled:
    """Read texts and labels of human texts, `limit` from the front; raise DataError for a row without them."""
    rows = list(load_rows(DataSection(path=path, limit=limit)))
    for row in rows:
        if not isinstance(row.values.get("text"), str) or row.values.get("label") not in (0, 1):
            raise DataError(f"{row.location}: a row of the gold judge needs text (a string) and label (0 or 1)")
    return [str(row.values["text"]) for row in rows], [int(row.values["label"]) for row in rows]

"""A server that draws for a stage, and what it gets of a model's weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rlhf.batches import join
from rlhf.config.engine import ServerSection
from rlhf.models.policy import sequence_logprobs
from rlhf.models.pretrained.vocabulary import num_embeddings
from rlhf.sampling.engines.protocol import Engine, Weights


def make_server(section: ServerSection, directory: Path | None = None) -> Engine:
    """Return the engine that is a server; nothing is sent yet.

    Args:
        section: its address and limits.
        directory: where it finds the weights; None for a temporary one that is removed once it has read them.

    Raises:
        ConfigError: the address is none, or the environment has no such token.
    """
    from rlhf.json_exchange import Limits
    from rlhf.rewards.kinds.http import token_of_environment
    from rlhf.sampling.engines.calls import Calls
    from rlhf.sampling.engines.server import ServerEngine

    limits = Limits(
        timeout=section.timeout,
        deadline=section.deadline,
        retries=section.retries,
        max_response_bytes=section.max_response_bytes,
    )
    token = None if section.token_env is None else token_of_environment(section.token_env)
    calls = Calls(section.url, limits, token, section.served_model)
    return ServerEngine(calls, directory, section.probe_tolerance)


def weights_for_server(model: Any, save: Callable[[Path], None], known: list[list[int]]) -> Weights:
    """Return a model's weights as an engine takes them.

    Args:
        model: a causal language model, or an adapter around one.
        save: writes it whole.
        known: sequences by which the server's weights are compared with these.
    """
    return Weights(
        save=save,
        known=known,
        vocabulary=num_embeddings(model),
        logprobs=lambda sequences: known_logprobs(model, sequences),
    )


@torch.no_grad()
def known_logprobs(model: Any, known: list[list[int]]) -> list[list[float]]:
    """Return the logprobs, at temperature 1, of all tokens but the first of some sequences; nats."""
    device = next(model.parameters()).device
    width = max(len(ids) for ids in known)
    mask = (torch.arange(width) < torch.tensor([len(ids) for ids in known])[:, None]).to(device)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in known], device=device)
    sequences = join(ids[:, :1], mask[:, :1], ids[:, 1:], mask[:, 1:])
    found = sequence_logprobs(model, sequences, width - 1, 1.0).tolist()
    return [row[: len(ids) - 1] for row, ids in zip(found, known, strict=True)]

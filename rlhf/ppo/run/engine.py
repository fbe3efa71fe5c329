"""The engine of a run: built from its section, and what it gets of the policy's weights."""

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from rlhf.batches import join
from rlhf.config import PPOSettings
from rlhf.config.engine import ServerEngineSection
from rlhf.errors import ConfigError
from rlhf.models.policy import PolicyWithValueHead, sequence_logprobs
from rlhf.models.pretrained.setup import Trainable, save_whole
from rlhf.models.pretrained.vocabulary import num_embeddings
from rlhf.rewards.kinds.http import token_of_environment
from rlhf.sampling.engines.generated import takes_keys_and_values
from rlhf.sampling.engines.local import LocalEngine
from rlhf.sampling.engines.protocol import Engine, Weights
from rlhf.stage import Frame
from rlhf.training.sharding.weights import Weights as HeldWeights
from rlhf.training.storage.atomic import atomic_directory

DIRECTORY = "engine_weights"
"""Where, in the directory of a run, a server finds the weights."""


def make_engine(config: PPOSettings, run: Frame, policy: PolicyWithValueHead) -> Engine:
    """Return what draws the responses; says so where it is not what the config names.

    Raises:
        ConfigError: a server is asked for by several processes, or its address is none.
    """
    section = config.engine
    if isinstance(section, ServerEngineSection):
        return _server(section, run, policy)
    generates = section.kind == "generate" or not takes_keys_and_values(policy.lm)
    if generates and section.kind == "native":
        run.processes.say(
            f"engine: transformers' generate draws the responses: {type(policy.lm).__name__} keeps its past in another "
            "way than the native decoder"
        )
    return LocalEngine(policy.lm, generates=generates)


def weights_of(
    trained: Trainable, weights: HeldWeights, tokenizer: PreTrainedTokenizerBase, policy: PolicyWithValueHead
) -> Weights:
    """Return the policy's weights as an engine takes them; `known` is empty until there are prompts."""

    def save(directory: Path) -> None:
        with weights.in_full_precision(), atomic_directory(directory) as temporary:
            save_whole(trained, tokenizer, temporary)

    return Weights(save=save, known=[], logprobs=lambda known: logprobs_of(policy, known))


@torch.no_grad()
def logprobs_of(policy: PolicyWithValueHead, known: list[list[int]]) -> list[list[float]]:
    """Return the policy's logprobs, at temperature 1, of all tokens but the first of some sequences."""
    device = policy.value_head.linear.weight.device
    width = max(len(ids) for ids in known)
    mask = (torch.arange(width) < torch.tensor([len(ids) for ids in known])[:, None]).to(device)
    ids = torch.tensor([row + [0] * (width - len(row)) for row in known], device=device)
    sequences = join(ids[:, :1], mask[:, :1], ids[:, 1:], mask[:, 1:])
    found = sequence_logprobs(policy.lm, sequences, width - 1, 1.0).tolist()
    return [row[: len(ids) - 1] for row, ids in zip(found, known, strict=True)]


def _server(section: ServerEngineSection, run: Frame, policy: PolicyWithValueHead) -> Engine:
    from rlhf.json_exchange import Limits
    from rlhf.sampling.engines.calls import Calls
    from rlhf.sampling.engines.server import ServerEngine

    if run.processes.num > 1:
        raise ConfigError(
            f"engine.kind: vllm serves one training process so far, {run.processes.num} started - start one, or use "
            "kind: native"
        )
    limits = Limits(
        timeout=section.timeout,
        deadline=section.deadline,
        retries=section.retries,
        max_response_bytes=section.max_response_bytes,
    )
    token = None if section.token_env is None else token_of_environment(section.token_env)
    calls = Calls(section.url, limits, token, section.served_model)
    return ServerEngine(calls, run.directory.path / DIRECTORY, num_embeddings(policy.lm), section.probe_tolerance)

"""The engine of a run: built from its section, and what it gets of the policy's weights."""

from pathlib import Path

from transformers import PreTrainedTokenizerBase

from rlhf.config import PPOSettings
from rlhf.config.engine import ServerEngineSection
from rlhf.errors import ConfigError
from rlhf.models.policy import PolicyWithValueHead
from rlhf.models.pretrained.setup import Trainable, save_whole
from rlhf.sampling.engines.generated import takes_keys_and_values
from rlhf.sampling.engines.local import LocalEngine
from rlhf.sampling.engines.protocol import Engine, Weights
from rlhf.stage.engine import make_server, weights_for_server
from rlhf.stage.frame import Frame
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
        if run.processes.num > 1:
            raise ConfigError(
                f"engine.kind: vllm serves one training process so far, {run.processes.num} started - start one, or "
                "use kind: native"
            )
        return make_server(section, run.directory.path / DIRECTORY)
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

    return weights_for_server(policy.lm, save, [])

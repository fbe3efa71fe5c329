"""Check of the memory: what the run will need, and what is free."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.doctor.finding import Finding, graded
from rlhf.doctor.trial import Trial
from rlhf.models.passes.matrices import key_width
from rlhf.models.passes.quantized import quantized_tensors
from rlhf.ppo.run.assembly import PPORun
from rlhf.sampling.packed import is_packable
from rlhf.sampling.static_decoder import takes_static_shapes
from rlhf.sampling.static_memory import bucket_of, capacity_of
from rlhf.training.storage.schema import bytes_of

GIB = 2**30
TIGHT = 0.8
"""A run that needs more than this share of what is free leaves no room for what the estimate misses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Bytes that models take from the start."""

    policy: int
    """With its critic."""
    masters: int
    """Float32 copies, trained and frozen."""
    reference: int
    """Beyond what it shares with the policy."""
    rewards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToCome:
    """Bytes that the run adds."""

    gradients: int
    moments: int
    activations: int
    """Of one microbatch, for its backward pass."""
    sampling: int
    """The cache of a batch of responses, and packed weights."""
    kept_cache: int
    """The same cache where CUDA graphs keep it from rollout to rollout."""
    kept_states: int
    """The frozen blocks' outputs for a rollout."""

    @property
    def total(self) -> int:
        """What is needed at once: sampling and the backward pass take turns, but for what sampling keeps."""
        kept = self.kept_states + self.kept_cache
        return self.gradients + self.moments + kept + max(self.activations, self.sampling)


def memory_suffices(parts: PPORun, trial: Trial, available: int) -> Finding:
    """Compare the estimate with `available`, the bytes that were free once the models were loaded."""
    loaded, coming = already_loaded(parts), to_come(parts, trial)
    share = coming.total / max(available, 1)
    return graded(
        "memory",
        f"loaded {_listed(loaded)}; to come {_listed(coming)}, {coming.total / GIB:.1f} GiB at once, of "
        f"{available / GIB:.1f} GiB free",
        failing="the run will not fit - lower microbatch_tokens or sampling.batch_rows, train less (model.lora, "
        "model.trainable_layers), or take a smaller model"
        if share > 1
        else "",
        warning="there is little room left - lower microbatch_tokens or sampling.batch_rows" if share > TIGHT else "",
    )


def already_loaded(parts: PPORun) -> Loaded:
    """Count the bytes of everything that `assemble` loaded."""
    trainer = parts.trainer
    weights = trainer.optimizer.weights
    own = [*trainer.policy.parameters(), *quantized_tensors(trainer.policy)]
    known = {tensor.data_ptr() for tensor in own}
    rewards = [item[0] for item in trainer.collector.scorer.rewards]
    return Loaded(
        policy=_bytes(own),
        masters=_bytes([*weights.masters.values(), *weights.frozen.kept.values()], known),
        reference=_bytes(trainer.collector.reference.model.parameters(), known),
        rewards=_bytes(p for reward in rewards for model in _models(reward) for p in model.parameters()),
    )


def to_come(parts: PPORun, trial: Trial) -> ToCome:
    """Estimate what training and sampling add; gradients are float32, activations as in the trial."""
    trainer, config = parts.trainer, parts.trainer.config
    trained = _bytes(trainer.optimizer.weights.masters.values())
    prompts = max(len(prompt.ids) for prompt in parts.prompts)
    width = prompts + config.sampling.max_new_tokens
    rows = config.rollout_batch_size // trainer.processes.num
    lm, states = trainer.policy.lm, trial.collected.frozen_states
    kept = rows * width * lm.config.get_text_config().hidden_size * lm.dtype.itemsize if states else 0
    packed = _bytes(lm.parameters()) if is_packable(lm) else 0
    # A row longer than the budget is a microbatch of its own.
    tokens = max(config.microbatch_tokens, width)
    decoded = min(config.sampling.batch_rows, rows)
    is_static = config.sampling.cuda_graphs == "auto" and lm.device.type == "cuda" and takes_static_shapes(lm, decoded)
    slots = bucket_of(decoded) * capacity_of(width) if is_static else decoded * width
    keeps = is_static and not config.release_gradients
    return ToCome(
        gradients=trained,
        moments=bytes_of(form for name, form in trainer.optimizer.forms().items() if not name.startswith("step.")),
        activations=int(trial.saved_bytes * tokens),
        sampling=packed + (0 if keeps else slots * _cache_bytes(lm)),
        kept_cache=slots * _cache_bytes(lm) if keeps else 0,
        kept_states=kept,
    )


def _models(reward: object) -> list[nn.Module]:
    """Return the models that a reward holds: itself, or its members where it is an ensemble."""
    held = _attributes(reward)
    members = [member for each in held if isinstance(each, list) for member in each]
    parts = [*held, *(part for member in members for part in _attributes(member))]
    return [part for part in parts if isinstance(part, nn.Module)]


def _attributes(thing: object) -> list[object]:
    return list(getattr(thing, "__dict__", {}).values())


def _cache_bytes(lm: PreTrainedModel) -> int:
    """Return the bytes of keys and values of one token in all layers."""
    return int(2 * lm.config.get_text_config().num_hidden_layers * key_width(lm) * lm.dtype.itemsize)


def _bytes(tensors: Iterable[Tensor], known: Iterable[int] = ()) -> int:
    """Add up distinct tensors, except those at the addresses `known`."""
    sizes = {tensor.data_ptr(): tensor.nbytes for tensor in tensors}
    return sum(size for place, size in sizes.items() if place not in set(known))


def _listed(record: Loaded | ToCome) -> str:
    sizes = {field.name.replace("_", " "): getattr(record, field.name) for field in fields(record)}
    return ", ".join(f"{name} {size / GIB:.2f}" for name, size in sizes.items() if size)

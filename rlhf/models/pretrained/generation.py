"""What a model's generation_config.json says about sampling, beyond what ends a response."""

from transformers import PreTrainedModel

from rlhf.models.pretrained.directory import NEUTRAL


def sampling_settings(model: PreTrainedModel) -> dict[str, float]:
    """Return the settings of `NEUTRAL` that the model's generation config changes; empty where it has none."""
    config = getattr(model, "generation_config", None)
    found = {name: getattr(config, name, None) for name in NEUTRAL}
    return {name: value for name, value in found.items() if value is not None and value != NEUTRAL[name]}


def is_greedy(model: PreTrainedModel) -> bool:
    """Whether the model's generation config says that nothing is drawn: `do_sample: false`."""
    return getattr(getattr(model, "generation_config", None), "do_sample", None) is False


def ignored_settings(model: PreTrainedModel) -> str | None:
    """Return, for the user, what of `sampling_settings` rollouts leave aside, and why; None where there is nothing."""
    settings = sampling_settings(model)
    if not settings:
        return None
    listed = ", ".join(f"{name} {value:g}" for name, value in settings.items())
    return (
        f"generation_config.json sets {listed}; rollouts draw from the whole distribution at sampling.temperature, "
        "which is what is trained (rlhf generate and evaluate take them with decoding=model)"
    )

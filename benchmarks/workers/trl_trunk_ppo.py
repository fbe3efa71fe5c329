"""Worker: PPO updates of TRL 0.11.4 (value head on the policy's trunk), run by the Python of its environment."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

from stopwatch import Stopwatch, serve


def measure(work: dict[str, Any], watch: Stopwatch) -> dict[str, Any]:
    """Do the updates of `work`, the first of which is the warm-up."""
    policy, reference = (
        AutoModelForCausalLMWithValueHead.from_pretrained(_loaded(AutoModelForCausalLM, work, "policy"))
        for _ in range(2)
    )
    reward_model = _loaded(AutoModelForSequenceClassification, work, "reward_model")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(Path(work["policy"]) / "tokenizer.json"), **_special_tokens(work["policy"])
    )
    # Otherwise generation would end at the model's EOS, and the rows of the two sides would differ in length.
    policy.pretrained_model.generation_config.eos_token_id = None
    trainer = PPOTrainer(_settings(work), policy, reference, tokenizer)
    _wrap(watch, trainer)
    prompts = [torch.tensor(ids) for ids in work["prompt_ids"]]
    watch.start()
    for _ in range(work["updates"]):
        _update(trainer, prompts, reward_model, work["new_tokens"], watch)
        watch.lap()
    return {}


def _update(
    trainer: PPOTrainer, prompts: list[torch.Tensor], reward_model: Any, new_tokens: int, watch: Stopwatch
) -> None:
    """Do what a user's loop does around `step`: generate, score, step."""
    responses = trainer.generate(
        prompts,
        batch_size=len(prompts),
        return_prompt=False,
        remove_padding=False,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=new_tokens,
        pad_token_id=trainer.tokenizer.pad_token_id,
    )
    ids = torch.stack([torch.cat(pair) for pair in zip(prompts, responses, strict=True)])
    with torch.no_grad(), watch.phase("reward"):
        scores = reward_model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 0].float()
    trainer.step(prompts, responses, list(scores))


def _settings(work: dict[str, Any]) -> PPOConfig:
    rows = len(work["prompt_ids"])
    return PPOConfig(
        learning_rate=3e-6,
        batch_size=rows,
        mini_batch_size=rows // work["minibatches"],
        ppo_epochs=work["epochs"],
        init_kl_coef=0.05,
        adap_kl_ctrl=False,
        seed=work["seed"],
        accelerator_kwargs={"cpu": True},
    )


def _wrap(watch: Stopwatch, trainer: PPOTrainer) -> None:
    def forward(model: Any, *_: Any, **__: Any) -> str:
        if model is trainer.ref_model:
            return "reference"
        return "forward" if torch.is_grad_enabled() else "values"

    watch.wrap(trainer, "generate", "generation")
    watch.wrap(trainer, "batched_forward_pass", forward)
    watch.wrap(trainer.accelerator, "backward", "backward")
    watch.wrap(trainer.optimizer, "step", "optimizer")


def _loaded(kind: Any, work: dict[str, Any], name: str) -> Any:
    """Load a directory that a newer transformers has written."""
    path = work[name]
    written = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    config = AutoConfig.from_pretrained(path)
    if "rope_parameters" in written:  # the older release reads the base of the rotary angles elsewhere
        config.rope_theta = written["rope_parameters"]["rope_theta"]
    if name == "reward_model":
        config.num_labels = 1
    return kind.from_pretrained(path, config=config, torch_dtype=getattr(torch, work["dtype"]))


def _special_tokens(path: str) -> dict[str, str]:
    settings = json.loads((Path(path) / "tokenizer_config.json").read_text(encoding="utf-8"))
    return {name: settings[name] for name in ("bos_token", "eos_token", "pad_token", "unk_token") if name in settings}


if __name__ == "__main__":
    serve(measure)

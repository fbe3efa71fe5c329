"""`rlhf run`: sft -> reward model -> ppo -> evaluate, each skipped if it is complete and its config unchanged."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from rlhf.config import RunConfig
from rlhf.config.judges import PROXY
from rlhf.config.run import STAGES
from rlhf.data.overlap import check_overlap
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import RlhfError
from rlhf.evaluation import evaluate
from rlhf.evaluation.respond import load_policy_here, respond
from rlhf.fetch import resolve
from rlhf.forecast import Forecast, forecast_of
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.ppo import train_ppo
from rlhf.printable import one_line, printable
from rlhf.report import write_report
from rlhf.reward_model import train_reward_model
from rlhf.sft import train_sft
from rlhf.stage.frame import load_rows
from rlhf.training.launch import check_plain_launch
from rlhf.training.processes import is_main_by_launch
from rlhf.training.randomness import generator
from rlhf.training.storage.run_directory import COMPLETE
from rlhf.training.telemetry.memory import peak_memory_bytes
from rlhf.training.telemetry.pace import expecting

_FUNCTIONS: dict[str, Callable[..., Path]] = {
    "sft": train_sft,
    "reward_model": train_reward_model,
    "ppo": train_ppo,
    "evaluate": evaluate,
}
_POLICIES = {"sft": "SFT", "ppo": "PPO"}
"""Stages whose result is a policy, and how the screen calls them."""
PROFILED = ("sft", "reward_model", "ppo")
"""Stages that can report where their time goes."""
NUM_SHOWN = 3
"""Prompts that the policy answers on the screen before training, after SFT and after PPO."""


def run(config: RunConfig, *, profile: bool = False) -> Path:
    """Run the stages of a recipe in order, and print how long each will take and took.

    `profile` goes to the stages that train.

    Where the recipe has an evaluation, the policy answers a few of its prompts on the screen: untrained, after SFT and
    after PPO. These answers are drawn by themselves and change no stage.

    Returns:
        The recipe's output directory.

    Raises:
        RlhfError: a stage failed; the stages before it stay complete.
    """
    check_plain_launch(os.environ, "`rlhf run`")
    forecast = forecast_of(config) if is_main_by_launch() else Forecast({})
    for line in forecast.opening():
        _say(line)
    _check_prompts(config)
    for name in STAGES:
        section = getattr(config, name)
        if section is None:
            continue
        _say(f"== {name}{forecast.before(name)}")
        is_new = name in _POLICIES and not (Path(section.output_dir) / COMPLETE).exists()
        if is_new and name == "sft" and not (section.model.random_init or section.model.trust_remote_code):
            _show_words(config, "before training", section.model.path)
        started = time.perf_counter()
        options = {"profile": True} if profile and name in PROFILED else {}
        with expecting(forecast.seconds(name)):
            result = _FUNCTIONS[name](section, **options)
        seconds, gib = time.perf_counter() - started, peak_memory_bytes() / 2**30
        told = forecast.after(name, seconds)
        _say(f"== {name}: {result} after {seconds:.0f} s{told}, peak memory of the run so far {gib:.1f} GiB")
        if is_new:
            _show_words(config, f"after {_POLICIES[name]}", str(result))
    _show_summary(config)
    _write_report(Path(config.output_dir))
    return Path(config.output_dir)


def _check_prompts(config: RunConfig) -> None:
    """Compare the prompts of PPO with those of the evaluation, before any stage takes its time.

    Raises:
        RlhfError: some are the same and `ppo.on_overlap` is `error`, or prompts cannot be read.
    """
    ppo, evaluation = config.ppo, config.evaluate
    if ppo is None or evaluation is None or (Path(ppo.output_dir) / COMPLETE).exists():
        return
    model = (config.sft or ppo).model  # PPO reads with the tokenizer that SFT saves
    tokenizer = load_tokenizer(resolve(model.path), trust_remote_code=model.trust_remote_code, **model.chat)
    training, heldout = (
        [prompt.text for prompt in prepare_prompts(load_rows(section), tokenizer, **section.fitting).items]
        for section in (ppo.prompts, evaluation.prompts)
    )
    check_overlap(training, heldout, _say, ppo.on_overlap, "prompts of evaluate")


def _show_summary(config: RunConfig) -> None:
    if config.evaluate is None:
        return
    comparison = Path(config.evaluate.output_dir) / "comparison.json"
    policies = json.loads(comparison.read_text(encoding="utf-8"))["policies"]
    for name, numbers in policies.items():
        for judge, said in numbers.get("judges", {}).items():
            rate = said["win_rate"]
            if rate is not None and judge != PROXY:
                interval = f"[{rate['low']:.1%}, {rate['high']:.1%}]"
                _say(f"{name}: win rate on the {judge} judge {rate['mean']:.1%} {interval}")


def _show_words(config: RunConfig, moment: str, path: str) -> None:
    """Print what the policy in `path` answers to the first prompts of the evaluation."""
    section = config.evaluate
    if section is None or not is_main_by_launch():
        return
    policy = load_policy_here(path, section.precision, section.chat)
    few = section.prompts.model_copy(update={"limit": NUM_SHOWN})
    prompts = prepare_prompts(load_rows(few), policy.tokenizer, **few.fitting).items
    responses = respond(policy, prompts, section.decoding, generator(section.seed, "words"))
    _say(f"the policy {moment}:")
    for prompt, response in zip(prompts, responses, strict=True):
        asked = str(policy.tokenizer.decode(list(prompt.ids), skip_special_tokens=True))
        _say(f"  {one_line(asked)} ... {one_line(response.text)}")


def _write_report(directory: Path) -> None:
    """Write the page about the run; the stages are complete, so a page that cannot be written is no failure."""
    if not is_main_by_launch():
        return
    try:
        _say(f"report: {write_report(directory)}")
    except RlhfError as error:
        _say(printable(f"report: not written: {error}"))


def _say(line: str) -> None:
    if is_main_by_launch():
        print(line, flush=True)

"""A guard against slowdowns: our sampler against `generate`, our PPO update against a plain one, in one run.

`python benchmarks/guard.py` prints both ratios, and exits with status 1 if one is far below what it should be. The
sides take turns on the same work, so that a busy machine slows both. It does not measure how fast we are: the model is
small and random, and the bounds leave room for noise.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from plain_update import CLIP_RANGE, PlainUpdate, as_transformers_has_it
from rlhf.batches import Experience
from rlhf.config import PPOConfig
from rlhf.data.reading.text_files import write_jsonl
from rlhf.models.pretrained.quiet import quiet_transformers
from rlhf.ppo.experience import make_experience
from rlhf.ppo.rollout import Collected
from rlhf.ppo.run.assembly import PPORun
from rlhf.ppo.run.stage import assemble
from rlhf.ppo.starts.start_states import draw_start_states
from rlhf.sampling.decoder import left_padded
from rlhf.sampling.sampler import sample
from rlhf.stage.frame import Frame
from rlhf.training.processes import Processes
from rlhf.training.storage.run_directory import RunDirectory

TINY = Path(__file__).resolve().parents[1] / "data" / "tiny_model"
TEXT = "the film was long and the end of it came as no surprise to any of us"
BOUNDS = {"sampler": 0.8, "update": 0.65}
"""Smallest ratio, their time / ours, that passes. Measured on two cores with four times too much load: 2.53 and 2.79
(1.15 and more without packed weights), and 1.31 to 1.49."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the model and the batch are."""

    hidden: int = 256
    blocks: int = 4
    vocabulary: int = 8192
    rows: int = 16
    new_tokens: int = 32
    turns: int = 3
    """Timed turns of each side, after one untimed turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The times of both sides on the same work."""

    name: str
    peer: str
    ours: float
    """Median seconds."""
    theirs: float
    """Median seconds."""

    @property
    def ratio(self) -> float:
        """How many times faster we are."""
        return self.theirs / self.ours

    @property
    def verdict(self) -> str | None:
        """Return the complaint in one line; None if the ratio passes."""
        bound = BOUNDS[self.name]
        if self.ratio >= bound:
            return None
        return f"guard: our {self.name} is {self.ratio:.2f}x as fast as {self.peer}, below {bound}x"


def build(directory: Path, sizes: Sizes) -> PPORun:
    """Write a random policy, prompts of unequal length and a reward, and assemble a PPO trainer."""
    shutil.copytree(TINY, directory / "policy")  # for its tokenizer
    model = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=3 * sizes.hidden,
        num_hidden_layers=sizes.blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    torch.manual_seed(0)
    with quiet_transformers():
        AutoModelForCausalLM.from_config(model, dtype=torch.float32).save_pretrained(directory / "policy")
    prompts = [{"prompt": TEXT[: 8 + 7 * (row % 9)]} for row in range(sizes.rows)]
    write_jsonl(directory / "prompts.jsonl", prompts)
    (directory / "reward.py").write_text("def score(completions): return [float(len(text)) for text in completions]\n")
    config = PPOConfig.model_validate(
        {
            "output_dir": str(directory / "run"),
            "model": {"path": str(directory / "policy"), "precision": "float32"},
            "prompts": {"path": str(directory / "prompts.jsonl")},
            "rewards": [{"kind": "function", "path": f"{directory / 'reward.py'}:score"}],
            "sampling": {"max_new_tokens": sizes.new_tokens},
            "compile": "off",  # it would take longer than all the rest
            "steps": 1,
            "rollout_batch_size": sizes.rows,
            "clip_range": CLIP_RANGE,
            "value_clip_range": CLIP_RANGE,
            "epochs": 2,
        }
    )
    run = RunDirectory(directory / "run", fingerprint="")
    with redirect_stdout(StringIO()):
        parts = assemble(config, Frame(config, Processes(), run, torch.float32))
    parts.trainer.collector.eos_ids = ()  # every response has the same length
    return parts


def compare_samplers(parts: PPORun, sizes: Sizes) -> Comparison:
    """Time sampling: the same prompts, `new_tokens` each, no early end."""
    trainer = parts.trainer
    prompts = draw_start_states(parts.prompts, 0, trainer.processes.device).batch
    lm, (ids, mask) = trainer.policy.lm, left_padded(prompts)
    peer = as_transformers_has_it(lm)

    def ours() -> int:
        numbers, longest = torch.Generator().manual_seed(0), sizes.new_tokens
        made = sample(lm, prompts, max_new_tokens=longest, temperature=1.0, eos_ids=(), generator=numbers)
        return made.response_ids.numel()

    def theirs() -> int:
        made: Tensor = peer.generate(  # type: ignore[operator]  # its type hides the method
            ids, attention_mask=mask.long(), max_new_tokens=sizes.new_tokens, do_sample=True, top_k=0, top_p=1.0,
            temperature=1.0, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        return made[:, ids.shape[1] :].numel()

    return compared("sampler", "generate", ours, theirs, sizes.turns)


def compare_updates(parts: PPORun, sizes: Sizes) -> Comparison:
    """Time the epochs of one PPO step on the same rollout, from the same weights."""
    trainer = parts.trainer
    plain = PlainUpdate(as_transformers_has_it(trainer.policy.lm), sizes.hidden, trainer.config)
    experience, collected = experienced(parts)
    tokens = int(experience.rollout.response_mask.sum()) * trainer.config.epochs

    def ours() -> int:
        trainer.optimise(experience, collected)
        return tokens

    def theirs() -> int:
        plain.optimise(experience, torch.arange(sizes.rows).chunk(trainer.config.minibatches))
        return tokens

    return compared("update", "a plain update", ours, theirs, sizes.turns)


def experienced(parts: PPORun) -> tuple[Experience, Collected]:
    """Return the experience of an update."""
    trainer = parts.trainer
    starts = draw_start_states(parts.prompts, 0, trainer.processes.device)
    collected = trainer.collector.collect(starts, trainer.generators.rollout)
    experience = make_experience(collected.rollout, trainer.kl_control.coef, trainer.config, trainer.processes)
    return experience, collected


def compared(name: str, peer: str, ours: Callable[[], int], theirs: Callable[[], int], turns: int) -> Comparison:
    """Let both sides work in turn, once untimed and then `turns` times, and take the medians.

    Raises:
        ValueError: the two did not do the same amount of work.
    """
    seconds: dict[Callable[[], int], list[float]] = {ours: [], theirs: []}
    for _ in range(turns + 1):
        done = []
        for side, times in seconds.items():
            started = time.perf_counter()
            done.append(side())
            times.append(time.perf_counter() - started)
        if done[0] != done[1]:
            raise ValueError(f"{name}: we did {done[0]} tokens, {peer} {done[1]}: nothing to compare")
    medians = [statistics.median(times[1:]) for times in seconds.values()]
    return Comparison(name=name, peer=peer, ours=medians[0], theirs=medians[1])


def main(arguments: Sequence[str] | None = None, sizes: Sizes | None = None) -> int:
    """Compare, print, and return 1 if something is far too slow."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the ratios, one object per comparison")
    options = parser.parse_args(arguments)
    sizes = sizes or Sizes()
    torch.set_num_threads(1)  # threads waiting for one another on a busy machine would drown the difference
    with tempfile.TemporaryDirectory() as directory:
        parts = build(Path(directory), sizes)
        comparisons = [compare_samplers(parts, sizes), compare_updates(parts, sizes)]
    for each in comparisons:
        print(f"{each.name}: {each.ours:.2f} s, {each.peer} {each.theirs:.2f} s, {each.ratio:.2f}x", flush=True)
    if options.json is not None:
        rows = [{**asdict(each), "ratio": each.ratio, "bound": BOUNDS[each.name]} for each in comparisons]
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    verdicts = [each.verdict for each in comparisons if each.verdict is not None]
    for verdict in verdicts:
        print(verdict, file=sys.stderr)
    return 1 if verdicts else 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs written by hand: a healthy one, and each of its illnesses as a change of a few curves."""

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

Curve = Callable[[float], float]
"""From the share of the run that is done, 0 to 1, to a number; noise is added."""


def rising(start: float, end: float) -> Curve:
    """A curve that moves from one number to another and slows down."""
    return lambda done: start + (end - start) * (1 - math.exp(-4 * done)) / (1 - math.exp(-4))


HEALTHY: dict[str, tuple[Curve, float]] = {
    "objective/scores": (rising(-1.9, 1.8), 0.15),
    "objective/scores_std": (rising(1.6, 1.1), 0.1),
    "objective/rlhf_reward": (rising(-1.9, 1.3), 0.15),
    "objective/kl": (rising(0.0, 11.0), 0.3),
    "objective/kl_per_token": (rising(0.0, 0.5), 0.01),
    "objective/kl_coef": (rising(0.05, 0.05), 0.0),
    "objective/entropy": (rising(3.0, 2.1), 0.05),
    "val/response_length": (rising(26.0, 20.0), 0.5),
    "val/share_ended": (rising(0.78, 0.97), 0.02),
    "val/explained_variance": (rising(0.0, 0.6), 0.05),
    "val/first_ratio_deviation": (rising(0.0, 0.0), 0.0),
    "policy/clipfrac_avg": (rising(0.12, 0.06), 0.01),
    "policy/approxkl_avg": (rising(0.02, 0.01), 0.001),
    "loss/policy_avg": (rising(-0.02, -0.01), 0.005),
    "loss/value_avg": (rising(1.2, 0.4), 0.05),
    "reward/model/mean": (rising(-1.9, 1.8), 0.15),
    "reward/model/length_correlation": (rising(0.1, 0.05), 0.1),
    "lr/policy": (rising(1e-5, 0.0), 0.0),
    "grad_norm/policy": (rising(0.9, 0.7), 0.05),
    "seconds": (rising(2.0, 2.0), 0.05),
}
ILL: dict[str, dict[str, tuple[Curve, float]]] = {
    "length-exploited": {
        "val/response_length": (rising(20.0, 46.0), 1.0),
        "reward/model/length_correlation": (rising(0.4, 0.7), 0.05),
    },
    "entropy-collapse": {"objective/entropy": (rising(3.0, 0.2), 0.03)},
    "critic-explains-nothing": {"val/explained_variance": (rising(0.0, -0.02), 0.03)},
    "kl-runaway": {"objective/kl": (lambda done: 80 * done**3, 0.5)},
    "eos-lost": {"val/share_ended": (rising(0.8, 0.1), 0.02)},
    "clip-fraction": {"policy/clipfrac_avg": (rising(0.1, 0.5), 0.02)},
    "hardly-varies": {"objective/scores_std": (rising(1.6, 0.0), 0.001)},
    "first-ratio": {"val/first_ratio_deviation": (rising(0.0, 0.02), 0.0)},
}
"""By the detector that is to warn: what is other than in a healthy run."""
PROMPTS = [f"The film number {number}" for number in range(16)]
WORDS = ("a", "fine", "dull", "warm", "cold", "story", "with", "many", "odd", "turns", "and", "scenes", "nobody", "saw")


def metrics(changes: dict[str, tuple[Curve, float]], *, steps: int = 60, seed: int = 0) -> list[dict[str, float]]:
    """The rows of metrics.jsonl."""
    noise = random.Random(seed)
    curves = {**HEALTHY, **changes}
    rows = []
    for step in range(1, steps + 1):
        done = (step - 1) / (steps - 1)
        numbers = {name: curve(done) + noise.gauss(0, width) for name, (curve, width) in curves.items()}
        rows.append({"step": step, **numbers, "updates": 8.0})
    return rows


def sample(step: int, prompt: str, noise: random.Random, **others: Any) -> dict[str, Any]:
    """A row of a file of samples."""
    text = " " + " ".join(noise.choice(WORDS) for _ in range(12))
    score = {"score": noise.gauss(step / 30, 1.0), "kl": abs(noise.gauss(step / 6, 1.0))}
    return {"prompt": prompt, "response": text, **score, "ended": True, "tokens": 13, **others}


def trace(noise: random.Random, texts: list[str], forced: int = 0) -> dict[str, Any]:
    """The numbers of each token of an episode."""
    names = ("advantage", "value", "kl", "ratio", "surprise", "token_score")
    numbers = {name: [0.0] * forced + [noise.gauss(0, 1) for _ in texts[forced:]] for name in names}
    numbers["ratio"] = [math.exp(number / 9) for number in numbers["ratio"]]
    return {"text": texts, "forced": forced, **numbers, "clipped": [float(noise.random() < 0.1) for _ in texts]}


def write_samples(directory: Path, *, steps: int = 60, every: int = 5, number: int = 8, seed: int = 0) -> None:
    """Write samples of every few steps; the first of each has the numbers of its tokens."""
    noise = random.Random(seed)
    directory.mkdir(parents=True)
    for step in [1, *range(every, steps + 1, every)]:
        rows = [sample(step, prompt, noise) for prompt in noise.sample(PROMPTS, min(number, len(PROMPTS)))]
        texts = [" " + word for word in rows[0]["response"].split()]
        rows[0]["trace"] = trace(noise, texts, forced=2)
        write_rows(directory / f"step-{step:06d}.jsonl", rows)


def interval(mean: float, width: float) -> dict[str, float]:
    """An estimate as comparison.json has it."""
    return {"mean": mean, "low": mean - width, "high": mean + width}


def comparison(gold: float | None = 0.88, reward: float | None = 0.9) -> dict[str, Any]:
    """An evaluation of two policies; None leaves a judge out."""

    def rate(mean: float | None) -> dict[str, float] | None:
        return None if mean is None else interval(mean, 0.05)

    nothing = {"gold": {"win_rate": None}, "reward": {"win_rate": None}}
    sft = {"judges": nothing, "kl": interval(0.0, 0.0), "length": interval(26.0, 1.0)}
    judges = {"gold": {"win_rate": rate(gold)}, "reward": {"win_rate": rate(reward)}}
    ppo = {"judges": judges, "kl": interval(11.0, 1.0)}
    shared = {"ended": 0.9, "distinct_2": 0.7}
    return {
        "num_prompts": 256,
        "policies": {"sft": {**sft, **shared}, "ppo": {**ppo, "length": interval(20, 1), **shared}},
    }


def write_evaluation(directory: Path, content: dict[str, Any], *, with_scores: bool = True) -> None:
    """Write the comparison, and the answers of both policies."""
    directory.mkdir(parents=True)
    (directory / "comparison.json").write_text(json.dumps(content))
    (directory / "config.yaml").write_text(
        f"output_dir: {directory}\npolicies: {{sft: a, ppo: b}}\nprompts: {{path: p}}\n"
    )
    (directory / "complete.json").write_text("{}")
    noise = random.Random(1)
    for name, better in (("sft", 0.0), ("ppo", 1.0)):
        rows = [sample(0, prompt, noise) for prompt in PROMPTS]
        for row in rows:
            row.pop("score")
            if with_scores:
                row["scores"] = {"gold": noise.gauss(better, 1.0), "reward": noise.gauss(2 * better, 1.0)}
        write_rows(directory / f"{name}.jsonl", rows)


def frontier() -> dict[str, Any]:
    """A frontier whose proxy rises while gold turns at a KL of e: gain d (1 - 0.1 log d), gold d (1 - 2/3 log d)."""
    beta = {"proxy": 0.1, "gold": 2 / 3}
    points = [
        {"kind": "ppo", "name": f"step-{step:06d}", "number": step, "kl": kl}
        | {judge: interval(kl**0.5 * (1 - each * math.log(kl) / 2), 0.1) for judge, each in beta.items()}
        for step, kl in ((10, 1.0), (20, 3.0), (30, 9.0), (40, 25.0))
    ]
    points += [
        {"kind": "best_of", "name": f"best of {n}", "number": n, "kl": math.log(n) - (n - 1) / n}
        | {"proxy": interval(0.6 * math.log2(n), 0.1), "gold": interval(0.3 * math.log2(n), 0.1)}
        for n in (2, 4, 8)
    ]
    laws = {
        judge: {"kind": "ppo", "alpha": interval(1.0, 0.2), "beta": interval(each, 0.05), "turnover_kl": turn}
        for (judge, each), turn in zip(beta.items(), (None, math.e), strict=True)
    }
    noise = random.Random(2)
    disputed = [
        {"policy": "step-000040", "prompt": prompt, "response": sample(40, prompt, noise)["response"]}
        | {"proxy": 4.0 - place / 10, "gold": -1.5}
        for place, prompt in enumerate(PROMPTS[:6])
    ]
    return {
        "gold_judge": "gold",
        "num_prompts": 256,
        "points": points,
        "laws": {"ppo": laws, "best_of": {"proxy": None, "gold": None}},
        "best": "step-000020",
        "disputed": disputed,
    }


def write_frontier(run: Path, content: dict[str, Any] | None = None) -> Path:
    """Write a frontier where `rlhf evaluate --frontier` puts it beside an evaluation; return the file."""
    path = run / "evaluate" / "frontier" / "frontier.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(frontier() if content is None else content))
    return path


def plant(
    path: Path,
    changes: dict[str, tuple[Curve, float]] | None = None,
    *,
    evaluation: dict[str, Any] | None = None,
    steps: int = 60,
    seed: int = 0,
) -> Path:
    """Write a run of `rlhf run`: PPO with samples, and an evaluation; return its directory."""
    ppo = path / "ppo"
    write_samples(ppo / "samples", steps=steps, seed=seed)
    write_rows(ppo / "metrics.jsonl", metrics(changes or {}, steps=steps, seed=seed))
    settings = f"output_dir: {ppo}\nseed: {seed}\nsteps: {steps}\nkl_coef: 0.05\nmodel: {{path: {path}/sft/policy}}\n"
    (ppo / "config.yaml").write_text(settings + "prompts: {path: p.jsonl}\nrewards: [{kind: length, target: 20}]\n")
    (ppo / "complete.json").write_text("{}")
    write_evaluation(path / "evaluate", comparison() if evaluation is None else evaluation)
    return path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a JSONL file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

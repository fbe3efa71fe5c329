"""Over-optimisation: how proxy and gold score follow the distance from the start, along a PPO run and by best of n."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rlhf.config import EvaluateConfig
from rlhf.config.judges import GOLD, PROXY
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError
from rlhf.evaluation.assembly import ComparisonInputs, make_measuring, measured_policies
from rlhf.evaluation.checkpoints import checkpoints_of, config_of_run, step_of
from rlhf.evaluation.measuring import Measuring
from rlhf.evaluation.readers import PolicyGenerations
from rlhf.evaluation.statistics.best_of_n import kl_bound
from rlhf.evaluation.statistics.bootstrap import Interval, mean_interval
from rlhf.evaluation.statistics.overoptimisation import Kind, Law, best_of_expected, fitted_law
from rlhf.evaluation.statistics.resampling import by_prompt
from rlhf.fetch import resolve
from rlhf.stage.frame import load_rows

Floats = NDArray[np.float64]

START, SAVED = "start", "policy"
MOST_ANSWERS = 16
"""Answers of the start to each prompt, among which the best of n is chosen; `best_of.n` replaces it."""
NUM_DISPUTED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A policy, or a best of n, at its distance from the start."""

    kind: Kind
    name: str
    number: int | None
    """PPO steps, or n; None for the policy that the run saved, whose step may be its best or its last."""
    kl: float
    """Nats per sequence; of a best of n the bound log n - (n - 1) / n."""
    proxy: Interval
    """Gain over the start, in standard deviations of the start's scores."""
    gold: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Disputed:
    """An answer that the proxy likes far better than the gold judge does."""

    policy: str
    prompt: str
    response: str
    proxy: float
    """Score less the start's mean, in standard deviations of the start's scores."""
    gold: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """What optimisation bought, by the judge that was optimised and by one that was not."""

    gold_judge: str
    num_prompts: int
    points: list[Point]
    laws: dict[str, dict[str, Law | None]]
    """By kind (`ppo`, `best_of`), then `proxy` and `gold`; None where there are fewer than two points."""
    best: str
    """The policy of the run with the best gold score."""
    disputed: list[Disputed]

    def to_json(self) -> str:
        """Return it as JSON text, numbers in full."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The points of one kind, prompt by prompt."""

    kind: Kind
    names: list[str]
    numbers: Sequence[int | None]
    kl: Floats
    """[P, N] nats."""
    gains: Mapping[str, Floats]
    """[P, N] over the start, by `proxy` and `gold`."""

    def points(self, seed: int) -> list[Point]:
        """Return the points with intervals over the prompts."""

        def interval(judge: str, place: int) -> Interval:
            return mean_interval(self.gains[judge][place], generator=np.random.default_rng(seed))

        return [
            Point(
                kind=self.kind,
                name=name,
                number=number,
                kl=float(self.kl[place].mean()),
                proxy=interval("proxy", place),
                gold=interval("gold", place),
            )
            for place, (name, number) in enumerate(zip(self.names, self.numbers, strict=True))
        ]

    def laws(self, seed: int) -> dict[str, Law | None]:
        """Return the fitted law of each judge."""
        found: dict[str, Law | None] = {}
        for judge, gains in self.gains.items():
            try:
                found[judge] = fitted_law(self.kind, self.kl, gains, generator=np.random.default_rng(seed))
            except ValueError:  # too few points
                found[judge] = None
        return found


def frontier(config: EvaluateConfig, run: Path, device: torch.device, output_dir: Path) -> Frontier:
    """Score every checkpoint of a PPO run, and the best of n answers of its start, by proxy and gold.

    Args:
        config: prompts, judges and decoding; its policies and its reference are replaced by those of the run.
        run: the directory of the PPO stage.
        device: where.
        output_dir: where the answers of each policy go.

    Raises:
        RlhfError: the run has no policies besides its start, a judge is missing, or something cannot be loaded.
    """
    inputs = frontier_inputs(config, run)
    gold = _gold_judge(config)
    number = MOST_ANSWERS if config.best_of is None else config.best_of.n
    own = config.model_copy(update={"best_of": None, "judges": config.rewards})  # a judge of pairs has no part in it
    measuring = make_measuring(inputs, own, device, further=number)
    with measuring.progress:
        try:
            generations = measured_policies(inputs, measuring, device, output_dir)
            chosen = _best_of(inputs, measuring, number, gold)
        finally:
            measuring.scorers.close()
    judges = {"proxy": PROXY, "gold": gold}
    start, policies = generations[START], {name: each for name, each in generations.items() if name != START}
    _check_scores(generations, judges, chosen)
    steps = [None if name == SAVED else int(name.removeprefix("step-")) for name in policies]
    return traced(start, policies, chosen, judges, steps=steps, seed=config.seed)


def frontier_inputs(config: EvaluateConfig, run: Path) -> ComparisonInputs:
    """Return the policies of a run: its start, every checkpoint, and the policy that it saved.

    Raises:
        ConfigError: it is no PPO run, it has nothing to compare, or there is no reward model.
    """
    start = resolve(config_of_run(run, run).model.path)
    policies = {f"step-{step_of(path):06d}": str(path) for path in checkpoints_of(run)}
    if (run / "policy").is_dir():
        policies[SAVED] = str(run / "policy")
    if not policies:
        raise ConfigError(f"{run}: no checkpoints and no policy - set checkpoints.every and checkpoints.keep for PPO")
    if config.reward_model is None:
        raise ConfigError("reward_model: name the reward model that PPO optimised: the frontier compares it with gold")
    return ComparisonInputs(
        policies={START: start, **policies},
        reference=start,
        prompts=list(load_rows(config.prompts)),
        prompts_name=config.prompts.path,
        reward_model=config.reward_model,
    )


def traced(
    start: PolicyGenerations,
    policies: Mapping[str, PolicyGenerations],
    best_of: Mapping[str, Floats],
    judges: Mapping[str, str],
    *,
    steps: Sequence[int | None],
    seed: int,
) -> Frontier:
    """Return the frontier of answers that are judged already.

    Args:
        start: of the policy from which PPO started.
        policies: of the run, in its order.
        best_of: `proxy` and `gold` scores [N, M] of M answers of the start to each prompt.
        judges: the names of the judges `proxy` and `gold`.
        steps: PPO steps of each policy, as in `Point`.
        seed: of the resamples.
    """
    units = {judge: _unit(start.scores[name]) for judge, name in judges.items()}
    samples = start.samples_per_prompt

    def gain(policy: PolicyGenerations, judge: str) -> Floats:
        name = judges[judge]
        return by_prompt(policy.scores[name] - start.scores[name], samples) / units[judge]

    names = list(policies)
    ppo = Curve(
        kind="ppo",
        names=names,
        numbers=steps,
        kl=np.stack([by_prompt(each.kl, samples) for each in policies.values() if each.kl is not None]),
        gains={judge: np.stack([gain(each, judge) for each in policies.values()]) for judge in judges},
    )
    chosen = best_of_curve(best_of, units)
    points = [*ppo.points(seed), *chosen.points(seed)]
    best = max((point for point in points if point.kind == "ppo"), key=lambda point: point.gold.mean)
    return Frontier(
        gold_judge=judges["gold"],
        num_prompts=start.num_prompts,
        points=points,
        laws={"ppo": ppo.laws(seed), "best_of": chosen.laws(seed)},
        best=best.name,
        disputed=_disputed(start, policies, judges, units),
    )


def best_of_curve(scores: Mapping[str, Floats], units: Mapping[str, float]) -> Curve:
    """Return the gains of the best of 2, 4, 8 ... answers [N, M] over one answer, chosen by the proxy."""
    num_prompts, most = scores["proxy"].shape
    numbers = [2**power for power in range(1, most.bit_length()) if 2**power <= most]
    gains = {
        judge: np.stack([(best_of_expected(scores["proxy"], given, n) - given.mean(1)) / units[judge] for n in numbers])
        for judge, given in scores.items()
    }
    kl = np.array([[kl_bound(n)] * num_prompts for n in numbers])
    return Curve(kind="best_of", names=[f"best of {n}" for n in numbers], numbers=numbers, kl=kl, gains=gains)


def _best_of(inputs: ComparisonInputs, measuring: Measuring, number: int, gold: str) -> dict[str, Floats]:
    print(f"{START}: {number} answers to each prompt, for the best of n", flush=True)
    start = measuring.reference
    prompts = prepare_prompts(inputs.prompts, start.tokenizer, **measuring.settings.prompts.fitting).items
    asked, drawn = measuring.drawn(start, prompts, number)
    scores = {judge: measuring.score(name, asked, drawn) for judge, name in (("proxy", PROXY), ("gold", gold))}
    return {judge: given.reshape(-1, number) for judge, given in scores.items()}


def _gold_judge(config: EvaluateConfig) -> str:
    if config.gold is not None:
        return GOLD
    if not config.rewards:
        raise ConfigError("gold: the frontier needs a judge that training did not optimise - set gold, or judges")
    return next(iter(config.rewards))


def _check_scores(
    generations: Mapping[str, PolicyGenerations], judges: Mapping[str, str], chosen: Mapping[str, Floats]
) -> None:
    for judge, name in judges.items():
        if any(np.isnan(each).any() for each in [chosen[judge], *(made.scores[name] for made in generations.values())]):
            raise ConfigError(f"judges.{name}: gives some answers no score, and the frontier needs one for each")


def _disputed(
    start: PolicyGenerations,
    policies: Mapping[str, PolicyGenerations],
    judges: Mapping[str, str],
    units: Mapping[str, float],
) -> list[Disputed]:
    """Return the answers whose proxy score is farthest above their gold score, at most one for each prompt."""
    means = {judge: float(start.scores[name].mean()) for judge, name in judges.items()}
    found: dict[str, Disputed] = {}
    for name, policy in policies.items():
        scores = {judge: (policy.scores[each] - means[judge]) / units[judge] for judge, each in judges.items()}
        for row, (prompt, response) in enumerate(zip(policy.requests, policy.answers, strict=True)):
            proxy, gold = float(scores["proxy"][row]), float(scores["gold"][row])
            known = found.get(prompt)
            if known is None or proxy - gold > known.proxy - known.gold:
                found[prompt] = Disputed(policy=name, prompt=prompt, response=response, proxy=proxy, gold=gold)
    return sorted(found.values(), key=lambda each: each.gold - each.proxy)[:NUM_DISPUTED]


def _unit(scores: Floats) -> float:
    spread = float(scores.std())
    return spread if spread > 0 else 1.0

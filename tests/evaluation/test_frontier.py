"""Tests of rlhf.evaluation.frontier: answers that are judged already, with a proxy corrupted on purpose."""

from dataclasses import replace

import numpy as np
import pytest

from rlhf.evaluation.frontier import traced
from rlhf.evaluation.readers import PolicyGenerations

NUM = 100
PROMPTS = [f"p{number}" for number in range(NUM)]
KL = {"step-000010": 0.5, "step-000020": 2.0, "step-000030": 6.0, "step-000040": 14.0, "policy": 25.0}
JUDGES = {"proxy": "reward", "gold": "gold"}


def generations(name, kl, proxy, gold, seed):
    noise = np.random.default_rng(seed).normal(size=NUM)
    noise = (noise - noise.mean()) / noise.std()  # the unit of scores is exactly 1
    return PolicyGenerations(
        prompts=PROMPTS,
        texts=[f"{prompt} {name}" for prompt in PROMPTS],
        requests=PROMPTS,
        answers=[f"{name} {prompt}" for prompt in PROMPTS],
        kl=np.full(NUM, kl),
        lengths=np.full(NUM, 5),
        ended=np.ones(NUM, dtype=bool),
        scores={"reward": noise + proxy, "gold": noise + gold},
    )


def planted(change=lambda scores: scores):
    """The proxy follows d (1 - 0.05 log d); the true score d (1 - 0.8 log d), which turns at exp(2 (1 / 0.8 - 1))."""
    start = generations("start", 0.0, 0.0, 0.0, 0)
    policies = {}
    for name, kl in KL.items():
        d = kl**0.5
        policies[name] = generations(name, kl, d * (1 - 0.05 * np.log(d)), d * (1 - 0.8 * np.log(d)), 0)
    generator = np.random.default_rng(1)
    quality, cheat = generator.normal(size=(2, NUM, 16))
    chosen = {"proxy": quality + cheat, "gold": quality - 0.5 * np.maximum(cheat - 1, 0) ** 2}
    chosen = {judge: change(scores) for judge, scores in chosen.items()}
    start, *others = (
        replace(each, scores={judge: change(scores) for judge, scores in each.scores.items()})
        for each in (start, *policies.values())
    )
    policies = dict(zip(policies, others, strict=True))
    return traced(start, policies, chosen, JUDGES, steps=[10, 20, 30, 40, None], seed=0)


@pytest.fixture(scope="module")
def found():
    return planted()


def test_a_corrupted_proxy_shows_its_turnover_and_rises_itself(found):
    gold, proxy = found.laws["ppo"]["gold"], found.laws["ppo"]["proxy"]
    assert (gold.alpha.mean, gold.beta.mean) == pytest.approx((1.0, 0.8))
    assert gold.turnover_kl == pytest.approx(np.exp(0.5))
    assert (proxy.alpha.mean, proxy.beta.mean) == pytest.approx((1.0, 0.05))
    assert proxy.turnover_kl > max(KL.values())


def test_the_checkpoint_with_the_best_gold_score_is_named(found):
    assert found.best == "step-000020"
    gains = {point.name: point.gold.mean for point in found.points if point.kind == "ppo"}
    assert max(gains, key=gains.get) == "step-000020"


def test_the_best_of_n_has_its_points_at_the_bound(found):
    points = [point for point in found.points if point.kind == "best_of"]
    assert [point.number for point in points] == [2, 4, 8, 16]
    assert [point.kl for point in points] == pytest.approx([np.log(n) - (n - 1) / n for n in (2, 4, 8, 16)])
    proxy = [point.proxy.mean for point in points]
    assert proxy == sorted(proxy) and proxy[0] > 0
    # Of 16 answers the proxy finds those that cheat: gold gains less from 8 to 16 than from 1 to 2.
    gold = [point.gold.mean for point in points]
    assert gold[3] - gold[2] < gold[0]


def test_the_answers_that_only_the_proxy_likes_are_shown_once_a_prompt(found):
    assert len(found.disputed) == 6 and len({each.prompt for each in found.disputed}) == 6
    assert {each.policy for each in found.disputed} == {"policy"}  # where proxy and gold are farthest apart
    assert all(each.proxy > each.gold for each in found.disputed)
    assert found.disputed[0].response.startswith("policy p")


def test_the_unit_and_the_zero_of_a_judge_change_nothing(found):
    other = planted(lambda scores: 4 * scores + 10)
    for one, two in zip(found.points, other.points, strict=True):
        for judge in JUDGES:
            assert getattr(one, judge).mean == pytest.approx(getattr(two, judge).mean)
    noise = np.random.default_rng(0).normal(size=NUM)
    noise = (noise - noise.mean()) / noise.std()
    for each in other.disputed:  # at a distance of 5
        own = noise[int(each.prompt[1:])]
        assert each.proxy == pytest.approx(own + 5 * (1 - 0.05 * np.log(5)))
        assert each.gold == pytest.approx(own + 5 * (1 - 0.8 * np.log(5)))


def test_scores_that_are_all_the_same_have_a_unit_of_1():
    flat = planted(lambda scores: np.full_like(scores, 3.0))
    assert {point.gold.mean for point in flat.points} == {0.0}

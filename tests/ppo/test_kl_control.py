"""Tests of rlhf.ppo.kl_control."""

import pytest

from rlhf.config.ppo import KLSection
from rlhf.ppo.kl_control import KLControl


def adaptive(kl_coef: float = 0.1) -> KLControl:
    return KLControl(kl_coef, KLSection(controller="adaptive", target=6.0, horizon=1000))


def test_a_fixed_coefficient_stays() -> None:
    control = KLControl(0.05, KLSection())
    control.update(1000.0, 64)
    assert control.coef == 0.05


def test_the_coefficient_follows_the_error_by_hand() -> None:
    control = adaptive()
    control.update(6.6, 100)  # error 6.6 / 6 - 1 = 0.1; factor 1 + 0.1 * 100 / 1000 = 1.01
    assert control.coef == pytest.approx(0.101)
    control.update(5.7, 200)  # error -0.05; factor 1 - 0.05 * 200 / 1000 = 0.99
    assert control.coef == pytest.approx(0.101 * 0.99)


@pytest.mark.parametrize(("kl", "factor"), [(60.0, 1.02), (0.0, 0.98), (-50.0, 0.98)])
def test_the_error_is_clipped_at_a_fifth(kl: float, factor: float) -> None:
    control = adaptive()
    control.update(kl, 100)
    assert control.coef == pytest.approx(0.1 * factor)


def test_at_the_target_nothing_moves() -> None:
    control = adaptive()
    control.update(6.0, 64)
    assert control.coef == 0.1

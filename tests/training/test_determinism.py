"""Tests of rlhf.training.determinism."""

import pytest
import torch

from rlhf.training import determinism
from rlhf.training.determinism import use_determinism


@pytest.fixture(autouse=True)
def _as_before():
    yield
    use_determinism(wanted=False, environment={})
    torch.use_deterministic_algorithms(False)


def state():
    cuda = torch.backends.cuda
    modes = (torch.are_deterministic_algorithms_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled())
    return (*modes, cuda.flash_sdp_enabled(), cuda.math_sdp_enabled())


def test_it_is_set_for_a_stage_and_taken_back_by_the_next_one():
    before, environment = state(), {}
    use_determinism(wanted=True, environment=environment)
    assert state() == (True, False, False, True, True)
    assert environment == {determinism.WORKSPACE: ":4096:8"}
    use_determinism(wanted=False, environment=environment)
    assert state() == before == (False, True, True, True, True)


def test_what_the_user_set_stays():
    torch.use_deterministic_algorithms(True)
    environment = {determinism.WORKSPACE: ":16:8"}
    use_determinism(wanted=False, environment=environment)
    assert torch.are_deterministic_algorithms_enabled()
    use_determinism(wanted=True, environment=environment)
    assert environment == {determinism.WORKSPACE: ":16:8"}


def test_a_stage_sets_it(tiny, workshop, monkeypatch, tmp_path):
    from rlhf.stage.frame import joined

    seen = []
    monkeypatch.setattr("rlhf.stage.frame.use_determinism", lambda *, wanted: seen.append(wanted))
    for wanted in (True, False):
        joined(tiny.ppo_config(workshop, deterministic=wanted), tmp_path, "")
    assert seen == [True, False]

"""Tests of rlhf.ppo.starts.report; its numbers are compared with plain sums in test_resets."""

from pathlib import Path
from types import ModuleType

import pytest

from rlhf.ppo.run.report import write_samples
from rlhf.ppo.starts.report import reset_metrics
from rlhf.training.processes import Processes


@pytest.mark.parametrize(("fraction", "kinds"), [(1.0, {"resets"}), (1e-12, {"prompts"})])
def test_a_kind_of_episode_that_did_not_occur_is_left_out(
    tiny: ModuleType, workshop: Path, fraction: float, kinds: set[str]
) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, reset=tiny.reset_section(workshop, fraction)))
    metrics = reset_metrics(made.trainer.step(made.prompts), Processes())
    assert {name.rpartition("_")[2] for name in metrics if "_at_" in name} == kinds
    assert metrics["reset/share"] == round(fraction)
    assert (metrics["reset/forced_tokens"] > 0) == (metrics["reset/decode_tokens_saved"] > 0) == (fraction == 1.0)


def test_samples_show_where_the_forced_part_ends(
    tiny: ModuleType, workshop: Path, tmp_path: Path, on_disk: ModuleType
) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, reset=tiny.reset_section(workshop, 0.5)))
    result = made.trainer.step(made.prompts)
    write_samples(result, tmp_path / "samples.jsonl", 8)
    rows = on_disk.rows(tmp_path / "samples.jsonl")
    num_forced = result.experience.rollout.forced.sum(1).tolist()
    assert 0 in num_forced and any(num_forced)
    for row, num in zip(rows, num_forced, strict=True):
        assert ("forced" in row, row.get("num_forced", 0)) == (num > 0, num)
        assert row["response"].startswith(row.get("forced", ""))
        assert len(row["response"]) > len(row.get("forced", ""))

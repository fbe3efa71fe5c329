"""docs/metrics.md names every metric that a run logs."""

import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from rlhf.ppo import train_ppo


def documented(root: Path) -> list[re.Pattern[str]]:
    names = re.findall(r"`([a-z]+(?:[/_A-Za-z]+)*)`", (root / "docs/metrics.md").read_text(encoding="utf-8"))
    return [re.compile(re.escape(name).replace("NAME", "[^/]+").replace("OTHER", "[^/]+")) for name in names]


@pytest.mark.slow
def test_every_metric_of_a_run_is_on_the_page(tiny: ModuleType, workshop: Path, tmp_path: Path, root: Path) -> None:
    rewards = [
        {"kind": "function", "path": f"{workshop / 'rewards.py'}:share_of_e"},
        {"kind": "length", "at_most": 2, "name": "short"},
    ]
    config = tiny.ppo_config(
        workshop, output_dir=str(tmp_path), rewards=rewards, entropy_coef=0.01, reset=tiny.reset_section(workshop, 0.5),
        eval_prompts={"path": str(workshop / "prompts.jsonl"), "limit": 2}, eval_every=1,
        best={"metric": "evaluation/scores"}, guards={"rollback": {"times": 1}}, kl_control__stop_at_kl=99.0,
    )  # fmt: skip
    train_ppo(config)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    logged = set().union(*rows)
    page = documented(root)
    assert {"reset/scores_at_resets", "policy/entropy_avg", "reward/short/mean", "best/step"} <= logged
    assert [name for name in sorted(logged) if not any(pattern.fullmatch(name) for pattern in page)] == []

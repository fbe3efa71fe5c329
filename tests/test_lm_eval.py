"""The documented `lm_eval` command works on what we save, with the task of examples/lm_eval, offline.

Needs `pip install lm_eval`, which the suite does not install; skipped without.
"""

import json
import shlex
import subprocess
import sys

import pytest

pytest.importorskip("lm_eval", reason="lm_eval is not installed")


def test_the_documented_command_measures_a_saved_policy(workshop, environment, root, tmp_path):
    page = (root / "docs/how-do-i.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("lm_eval ")]
    program, *arguments = shlex.split(line.replace("runs/quickstart/ppo/policy", str(workshop / "policy")))
    assert program == "lm_eval" and str(workshop) in " ".join(arguments)
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "lm_eval", *arguments, "--device", "cpu", "--output_path", str(tmp_path / "out")]
    done = subprocess.run(
        command, cwd=root, env={**environment, **offline}, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "openings" in done.stdout
    (found,) = (tmp_path / "out").rglob("results_*.json")
    result = json.loads(found.read_text())
    assert 0.0 <= result["results"]["openings"]["acc,none"] <= 1.0
    assert result["n-samples"]["openings"]["effective"] == 4

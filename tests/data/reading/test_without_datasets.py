"""Training from JSON lines where neither `datasets` nor `pyarrow` is installed, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = """
import sys

sys.modules["datasets"] = sys.modules["pyarrow"] = None  # an import of them fails, as where they are not installed
"""
STAGES = """
from rlhf.cli import main

runs, parts = sys.argv[1], ["checkpoints.every=null", "microbatch_tokens=512"]
sft, judge, ppo = (f"{runs}/{name}" for name in ("sft", "judge", "ppo"))
assert main(["sft", "--config", "configs/smoke/sft.yaml", f"output_dir={sft}", "steps=1", "epochs=null", *parts]) == 0
model = f"model.path={sft}/policy"
arguments = ["reward-model", "--config", "configs/smoke/reward_model.yaml", f"output_dir={judge}", model]
assert main([*arguments, "steps=1", "epochs=null", *parts]) == 0
rewards = f"rewards=[{{kind: model, path: {judge}/reward_model}}]"
arguments = ["ppo", "--config", "configs/smoke/ppo.yaml", f"output_dir={ppo}", model, rewards]
assert main([*arguments, "steps=1", "sampling.max_new_tokens=4", *parts]) == 0
"""
READING = """
from pathlib import Path
from rlhf.data.reading.rows import read_rows
from rlhf.errors import DataError

Path(sys.argv[1]).mkdir(exist_ok=True)
for name in ("rows.parquet", "rows.jsonl.zst", "saved"):
    path = Path(sys.argv[1]) / name
    path.mkdir() if name == "saved" else path.write_bytes(b"")
    if name == "saved":
        (path / "dataset_info.json").write_text("{}")
    try:
        read_rows(path)
    except DataError as error:
        print(str(error).partition(": ")[2])
try:
    read_rows("owner/name")
except DataError as error:
    print(error)
"""


def run(code: str, root: Path, runs: Path) -> str:
    command = [sys.executable, "-c", BLOCKED + code, str(runs)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_stage_trains_from_json_lines_without_datasets_and_pyarrow(root: Path, tmp_path: Path) -> None:
    run(STAGES, root, tmp_path / "runs")
    saved = [tmp_path / "runs" / name for name in ("sft/policy", "judge/reward_model", "ppo/policy")]
    assert all((path / "model.safetensors").is_file() for path in saved)


@pytest.mark.slow
def test_what_needs_a_missing_package_says_which_and_how_to_get_it(root: Path, tmp_path: Path) -> None:
    lines = run(READING, root, tmp_path / "data").splitlines()
    needs = "needs the package {}, which is not installed - pip install {}, or give a .jsonl file"
    arrow, datasets = needs.format("pyarrow", "pyarrow"), needs.format("datasets", "datasets")
    assert lines == [arrow, arrow, datasets, f"owner/name: {datasets}"]

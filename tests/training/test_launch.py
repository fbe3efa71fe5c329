"""Tests of rlhf.training.launch."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlhf.errors import ConfigError
from rlhf.training.launch import SETTINGS, SHARDING, check_launch


def test_a_plain_launch_passes():
    check_launch({})
    check_launch(
        {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_FSDP": "false"}
    )


@pytest.mark.parametrize(("variable", "name"), SHARDING.items())
def test_a_sharded_launch_is_refused_by_name(variable, name):
    with pytest.raises(ConfigError, match=f"accelerate launch: {name} is not supported yet") as caught:
        check_launch({variable: "true"})
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("variable", SETTINGS)
def test_a_setting_of_the_launcher_names_the_key_that_works(variable):
    name, ours = SETTINGS[variable]
    with pytest.raises(ConfigError, match=f"{name}: bf16 would have no effect - .* set {ours}"):
        check_launch({variable: "bf16"})


LAUNCHES = {
    "FSDP": {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2}},
    "mixed_precision: bf16": {"distributed_type": "NO", "mixed_precision": "bf16"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["FSDP", "mixed_precision: bf16"])
def test_a_launch_file_that_is_not_meant_ends_in_one_line(name, environment, root: Path, tmp_path: Path):
    plain = yaml.safe_load((root / "configs/accelerate/two_processes.yaml").read_text())
    (tmp_path / "launch.yaml").write_text(yaml.safe_dump({**plain, "num_processes": 1, **LAUNCHES[name]}))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "launch.yaml")]
    stage = ["-m", "rlhf", "sft", "--config", "configs/smoke/sft.yaml", f"output_dir={tmp_path / 'run'}"]
    done = subprocess.run([*command, *stage], cwd=root, env=environment, capture_output=True, text=True, timeout=240)
    ours = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(ours) == 1 and ours[0].startswith(f"error: accelerate launch: {name}")
    assert not (tmp_path / "run").exists()

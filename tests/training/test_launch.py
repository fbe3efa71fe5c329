"""Tests of rlhf.training.launch, and of the launch files in configs/accelerate."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

from rlhf.errors import ConfigError
from rlhf.training.launch import (
    KEYS,
    OTHERS,
    SETTINGS,
    Fsdp2Settings,
    check_launch,
    check_plain_launch,
    check_unsharded_launch,
    fsdp2_settings,
    hidden_from_accelerate,
    launched_precision,
)

FSDP2 = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
FILES = ("fsdp2", "fsdp2_offload", "one_gpu", "two_nodes", "two_processes")


def test_a_plain_launch_passes():
    plain = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_FSDP": "false"}
    for environment in ({}, plain):
        check_launch(environment)
        check_plain_launch(environment, "this")
        assert fsdp2_settings(environment) is None and launched_precision(environment, "auto") == "auto"


@pytest.mark.parametrize(("variable", "name"), OTHERS.items())
def test_what_shards_in_another_way_is_refused_by_name(variable, name):
    with pytest.raises(ConfigError, match=f"accelerate launch: {name} is not supported, .* use FSDP2") as caught:
        check_launch({variable: "true"})
    assert caught.value.exit_status == 2


def test_a_dynamo_backend_names_the_key_that_works():
    name, ours = SETTINGS["ACCELERATE_DYNAMO_BACKEND"]
    with pytest.raises(ConfigError, match=f"{name}: inductor would have no effect - .* set {ours}"):
        check_launch({"ACCELERATE_DYNAMO_BACKEND": "inductor"})


def test_commands_that_hold_models_whole_refuse_shards_and_mixed_precision():
    for check in (check_plain_launch, check_unsharded_launch):
        with pytest.raises(ConfigError, match="FSDP is not supported by `rlhf evaluate`, and every process would hold"):
            check(FSDP2, "`rlhf evaluate`")
    with pytest.raises(ConfigError, match="mixed_precision: bf16 would have no effect - .* set model.precision"):
        check_plain_launch({"ACCELERATE_MIXED_PRECISION": "bf16"}, "`rlhf evaluate`")


def test_what_a_launch_file_says_about_fsdp2_is_read():
    more = {"FSDP_OFFLOAD_PARAMS": "true", "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer, GPT2Block"}
    assert fsdp2_settings(FSDP2) == Fsdp2Settings(True, False, ())
    changed = {**FSDP2, **more, "FSDP_RESHARD_AFTER_FORWARD": "False"}
    assert fsdp2_settings(changed) == Fsdp2Settings(False, True, ("LlamaDecoderLayer", "GPT2Block"))


@pytest.mark.parametrize(("name", "key"), KEYS.items())
def test_another_value_of_fsdp_is_refused_with_the_fix(name, key):
    with pytest.raises(ConfigError, match=f"accelerate launch: {name}: other is not supported - ") as caught:
        fsdp2_settings({**FSDP2, key.variable: "other"})
    assert str(caught.value).endswith(key.fix) and caught.value.exit_status == 2


def test_fsdp1_is_refused_even_where_the_file_does_not_name_a_version():
    with pytest.raises(ConfigError, match="fsdp_version: 1 is not supported - set it to 2"):
        fsdp2_settings({**FSDP2, "FSDP_VERSION": "1"})


def test_mixed_precision_of_the_launcher_means_the_precision_of_the_model():
    asked = {"ACCELERATE_MIXED_PRECISION": "bf16"}
    assert launched_precision(asked, "auto") == launched_precision(asked, "bfloat16") == "bfloat16"
    with pytest.raises(ConfigError, match="mixed_precision: bf16, but model.precision: float32 - set one as the other"):
        launched_precision(asked, "float32")
    with pytest.raises(ConfigError, match="mixed_precision: fp16 is not supported - set it to bf16 or no"):
        launched_precision({"ACCELERATE_MIXED_PRECISION": "fp16"}, "auto")


def test_accelerate_does_not_see_what_is_done_here_while_it_starts(monkeypatch):
    asked = {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_MIXED_PRECISION": "bf16"}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    with hidden_from_accelerate():
        assert not asked.keys() & os.environ.keys()
    assert asked.items() <= os.environ.items()


def launched(file: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the environment that accelerate's own launcher makes of a file."""
    for name in [name for name in os.environ if name.startswith(("ACCELERATE_", "FSDP_"))]:
        monkeypatch.delenv(name)
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(["--config_file", str(file), "x.py"]))
    found: dict[str, str] = prepare_multi_gpu_env(arguments)
    return found


@pytest.mark.parametrize("name", FILES)
def test_each_launch_file_asks_for_what_its_name_says_and_says_what_it_was_tested_on(name, root, monkeypatch):
    file = root / f"configs/accelerate/{name}.yaml"
    environment = launched(file, monkeypatch)
    check_launch(environment)
    sharded = name not in ("one_gpu", "two_processes")
    expected = Fsdp2Settings(True, name == "fsdp2_offload", ()) if sharded else None
    assert fsdp2_settings(environment) == expected
    comments = " ".join(line[2:] for line in file.read_text().splitlines() if line.startswith("# "))
    assert "Tested on: " in comments and f"configs/accelerate/{name}.yaml" in comments


def test_every_launch_file_is_tested(root):
    assert {file.stem for file in (root / "configs/accelerate").iterdir()} == set(FILES)


LAUNCHES = {
    "fsdp_cpu_ram_efficient_loading": {"distributed_type": "FSDP", "fsdp_config": {"fsdp_version": 2}},
    "mixed_precision: bf16": {"distributed_type": "NO", "mixed_precision": "bf16"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAUNCHES)
def test_a_launch_file_that_is_not_meant_ends_in_one_line(name, environment, root: Path, tmp_path: Path):
    plain = yaml.safe_load((root / "configs/accelerate/two_processes.yaml").read_text())
    (tmp_path / "launch.yaml").write_text(yaml.safe_dump({**plain, "num_processes": 1, **LAUNCHES[name]}))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "launch.yaml")]
    stage = ["-m", "rlhf", "sft", "--config", "configs/smoke/sft.yaml", f"output_dir={tmp_path / 'run'}"]
    done = subprocess.run([*command, *stage], cwd=root, env=environment, capture_output=True, text=True, timeout=240)
    ours = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(ours) == 1 and ours[0].startswith(f"error: accelerate launch: {name}")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_fsdp2_with_offload_runs_from_its_launch_file(environment, root: Path, tmp_path: Path, free_port):
    file = ["--config_file", "configs/accelerate/fsdp2_offload.yaml", "--main_process_port", str(free_port())]
    changes = [f"output_dir={tmp_path / 'run'}", "epochs=null", "steps=2", "data.limit=20", "eval_data=null"]
    stage = ["-m", "rlhf", "sft", "--config", "configs/smoke/sft.yaml", *changes, "eval_every=null"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *file, *stage]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "2 process(es) on cpu" in done.stdout and "weights in shards (FSDP2)" in done.stdout
    assert (tmp_path / "run/policy/model.safetensors").exists()

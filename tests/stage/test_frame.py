import json
import shutil
from contextlib import chdir
from pathlib import Path

import pytest

from rlhf.config import EvaluateConfig, PPOConfig, RewardModelConfig, SftConfig
from rlhf.config.reading.loader import load_config
from rlhf.errors import CheckpointError, ConfigError, DataError, GuardStop
from rlhf.models.passes import attention
from rlhf.report.reading.run import read_stage
from rlhf.sft import train_sft
from rlhf.stage.frame import fingerprint
from rlhf.training.batch_plan import BatchPlan
from rlhf.training.supervised import SupervisedSteps

pytestmark = pytest.mark.usefixtures("in_the_repository")


def sft(output_dir, *overrides):
    fixed = ["epochs=null", "eval_every=null", "checkpoints.every=2", f"output_dir={output_dir}"]
    given = [*fixed, *([] if any(o.startswith("steps=") for o in overrides) else ["steps=3"]), *overrides]
    return load_config(SftConfig, Path("configs/smoke/sft.yaml"), given)


def mark(config):
    return fingerprint(config, [config.model.path, config.data.path])


@pytest.fixture(scope="module")
def finished(tmp_path_factory, root):
    """A finished run with a checkpoint of step 2, and a copy of its data."""
    path = tmp_path_factory.mktemp("stage")
    with chdir(root):
        shutil.copy("data/sft_train.jsonl", path / "rows.jsonl")
        train_sft(sft(path / "sft", f"data.path={path / 'rows.jsonl'}"))
    return path


@pytest.fixture
def run(finished, tmp_path):
    """The same in a directory of its own; `run(...)` is the config with the same data."""
    shutil.copytree(finished / "sft", tmp_path / "sft")
    shutil.copy(finished / "rows.jsonl", tmp_path / "rows.jsonl")
    return lambda *overrides: sft(tmp_path / "sft", f"data.path={finished / 'rows.jsonl'}", *overrides)


@pytest.mark.parametrize(
    "override", ["output_dir=elsewhere", "logging.every=7", "checkpoints.every=1", "expected_processes=4"]
)
def test_the_fingerprint_ignores_what_does_not_change_the_result(override):
    assert mark(sft("here", override)) == mark(sft("here"))


@pytest.mark.parametrize("override", ["seed=1", "optimizer.learning_rate=0.5", "loss_on=all", "steps=4", "compile=off"])
def test_the_fingerprint_follows_the_config(override):
    assert mark(sft("here", override)) != mark(sft("here"))


@pytest.mark.parametrize(
    ("schema", "name", "before"),
    [
        (SftConfig, "smoke/sft", "136605c57421"),
        (RewardModelConfig, "smoke/reward_model", "5be42f17ae89"),
        (PPOConfig, "all_rewards/ppo", "b88fc869a409"),
        (EvaluateConfig, "smoke/evaluate", "2102ff37d996"),
    ],
)
def test_a_key_that_came_later_does_not_make_a_finished_run_another_one(schema, name, before):
    """Fingerprints of December 2026: a new key belongs into `LATER`; a changed recipe or default has another one."""
    assert fingerprint(load_config(schema, Path(f"configs/{name}.yaml"), []), []).startswith(before)


def test_a_key_that_came_later_counts_where_it_changes_something():
    assert mark(sft("here", "optimizer.moments=8bit")) != mark(sft("here"))


def test_the_fingerprint_follows_the_content_of_the_data(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("one")
    before = mark(sft("here", f"data.path={rows}"))
    rows.write_text("two")
    assert mark(sft("here", f"data.path={rows}")) != before


def test_a_complete_run_is_left_alone(run, capsys):
    config = run()
    files = {path: path.stat().st_mtime_ns for path in Path(config.output_dir).rglob("*")}
    assert train_sft(config) == Path(config.output_dir) / "policy"
    assert capsys.readouterr().out.strip() == f"{config.output_dir}: complete, nothing to do"
    assert {path: path.stat().st_mtime_ns for path in Path(config.output_dir).rglob("*")} == files


def test_another_config_in_the_directory_of_a_complete_run_is_refused(run):
    with pytest.raises(
        CheckpointError,
        match=r"another config \(optimizer.learning_rate: \S+ -> 0.5\); choose another output_dir, or remove the dir",
    ) as error:
        train_sft(run("optimizer.learning_rate=0.5"))
    assert error.value.exit_status == 4


def test_another_config_in_the_directory_of_an_incomplete_run_is_refused_and_leaves_it_as_it_was(run):
    directory = Path(run().output_dir)
    (directory / "complete.json").unlink()
    before = {path.name: path.read_bytes() for path in (directory / "config.yaml", directory / "metrics.jsonl")}
    with pytest.raises(
        CheckpointError,
        match=r"differ: optimizer.learning_rate \(saved 0.01, now 0.5\); restore them or choose another output_dir",
    ) as error:
        train_sft(run("optimizer.learning_rate=0.5"))
    assert error.value.exit_status == 4
    assert {name: (directory / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("compile=off", r"compile \(saved 'auto', now 'off'\)"),
        ("packing=off", r"packing \(saved 'auto', now 'off'\)"),
        ("model.precision=bfloat16", r"model.precision \(saved 'float32', now 'bfloat16'\)"),
    ],
)
def test_a_run_is_not_resumed_with_another_rounding(run, override, told):
    (Path(run().output_dir) / "complete.json").unlink()
    with pytest.raises(CheckpointError, match=told):
        train_sft(run(override))


def test_changed_data_in_the_same_file_is_refused(run, finished, tmp_path):
    directory, rows = Path(run().output_dir), finished / "rows.jsonl"
    (directory / "complete.json").unlink()
    original = rows.read_text()
    try:
        rows.write_text(original.replace("clumsy", "clever"))
        with pytest.raises(CheckpointError, match="differ: content of data and models") as error:
            train_sft(run())
        assert error.value.exit_status == 4
    finally:
        rows.write_text(original)


def test_the_config_is_saved_and_loads_back_equal(finished):
    config = sft(finished / "sft", f"data.path={finished / 'rows.jsonl'}")
    assert load_config(SftConfig, finished / "sft" / "config.yaml") == config


def test_another_number_of_processes_than_expected_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match="expected_processes: 2, but 1 started") as error:
        train_sft(sft(tmp_path / "sft", "expected_processes=2"))
    assert error.value.exit_status == 2 and not (tmp_path / "sft").exists()


def test_a_row_beyond_the_models_positions_is_refused_with_the_numbers(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "In short the story", "completion": " was dull" * 100}) + "\n")
    with pytest.raises(
        ConfigError, match=r"has \d+ tokens, but the model has 128 positions - lower max_length \(999\)"
    ):
        train_sft(sft(tmp_path / "sft", f"data.path={rows}", "data.max_length=999"))


def test_an_adapter_on_random_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="lora on random_init would save an adapter without its base"):
        train_sft(sft(tmp_path / "sft", "model.lora={r: 2}"))


def test_tensorboard_receives_the_numbers(tmp_path, on_disk):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_sft(sft(tmp_path / "sft", "logging.trackers=[tensorboard]"))
    written = [path.parent for path in (tmp_path / "sft" / "events").rglob("events.out.tfevents.*")]
    losses = {}
    for folder in written:
        events = EventAccumulator(str(folder))
        events.Reload()
        if "loss" in events.Tags()["scalars"]:
            losses = {event.step: event.value for event in events.Scalars("loss")}
    rows = on_disk.metrics(tmp_path / "sft")
    assert losses == pytest.approx({row["step"]: row["loss"] for row in rows})


def test_held_out_records_that_are_in_the_training_data_are_counted(tmp_path, capsys):
    rows = Path("data/sft_train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    fresh = Path("data/sft_eval.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "leaky.jsonl").write_text("".join([*rows[:3], *fresh[:2]]), encoding="utf-8")
    train_sft(sft(tmp_path / "sft", "steps=1", f"eval_data.path={tmp_path / 'leaky.jsonl'}"))
    assert "warning: 3 of 5 held-out records are also in the training data" in capsys.readouterr().out
    train_sft(sft(tmp_path / "clean", "steps=1"))
    assert "held-out records" not in capsys.readouterr().out


def test_held_out_records_that_are_in_the_training_data_are_refused_where_the_config_says_so(tmp_path):
    leaky = ["steps=1", "eval_data.path=data/sft_train.jsonl", "on_overlap=error"]
    with pytest.raises(DataError, match="200 of 200 held-out records are also in the training data - take them out"):
        train_sft(sft(tmp_path / "sft", *leaky))
    clean = sft(tmp_path / "clean", "steps=1", "on_overlap=error")
    train_sft(clean)
    assert mark(clean) == mark(sft(tmp_path / "clean", "steps=1"))  # it changes no result


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_a_model_whose_rows_cannot_be_packed_is_trained_with_padding_and_that_is_said_once(
    choice, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(attention, "allows_packing", lambda model: False)
    train_sft(sft(tmp_path / "sft", f"packing={choice}", "steps=1"))
    said = "policy: rows of unequal length are padded, not packed: LlamaForCausalLM computes its attention"
    assert capsys.readouterr().out.count(said) == (choice == "auto")


def test_packing_that_is_asked_for_and_not_possible_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(attention, "allows_packing", lambda model: False)
    with pytest.raises(ConfigError, match=r"packing: on, but LlamaForCausalLM .* - set packing: auto"):
        train_sft(sft(tmp_path / "sft", "packing=on"))


def test_a_run_passes_its_rows_packed(tmp_path, monkeypatch):
    seen, cut = [], BatchPlan.microbatches
    monkeypatch.setattr(BatchPlan, "microbatches", lambda plan, items: seen.append(plan._packs) or cut(plan, items))
    for choice in ("auto", "off"):
        train_sft(sft(tmp_path / choice, f"packing={choice}", "steps=1"))
    assert seen == [True, False]


def test_a_stop_by_a_guard_is_recorded_for_the_report(tmp_path, monkeypatch):
    whole = SupervisedSteps.step

    def step(self, index):
        if index == 2:
            raise GuardStop("the loss is odd")
        return whole(self, index)

    monkeypatch.setattr(SupervisedSteps, "step", step)
    with pytest.raises(GuardStop, match="the loss is odd"):
        train_sft(sft(tmp_path / "sft"))
    (stop,) = json.loads((tmp_path / "sft" / "circumstances.json").read_text())["stops"]
    assert stop["after_step"] == 2 and stop["reason"].startswith("the loss is odd; the last good checkpoint is")
    ((after, reason),) = read_stage(tmp_path / "sft").guarded
    assert (after, reason) == (2, stop["reason"])

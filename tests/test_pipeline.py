import io
import json
import re
import socket
from contextlib import chdir, contextmanager, redirect_stdout
from pathlib import Path

import pytest
import yaml

from rlhf import pipeline
from rlhf.cli import main
from rlhf.config import RunConfig
from rlhf.config.reading.loader import load_config
from rlhf.config.run import STAGES
from rlhf.errors import DataError
from rlhf.forecast import Forecast, forecast_of

pytestmark = pytest.mark.usefixtures("in_the_repository")
RECIPE = "configs/smoke/run.yaml"
HERE = (None, "", "localhost", "127.0.0.1", "::1")
"""How this machine is called."""
QUICK = ["sft.epochs=1", "sft.eval_every=null", "reward_model.epochs=1", "ppo.steps=2", "ppo.kl_coef=0.1", "seed=7"]
QUICK += ["ppo.rollout_batch_size=8", "ppo.sampling.max_new_tokens=8", "evaluate.decoding.max_new_tokens=8"]


@pytest.fixture
def stages(monkeypatch):
    """The names and configs of the stages that ran, in order."""
    ran = []

    def stage(name):
        def record(config):
            ran.append((name, config))
            return Path(config.output_dir)

        return record

    monkeypatch.setattr(pipeline, "_FUNCTIONS", {name: stage(name) for name in STAGES})
    monkeypatch.setattr(pipeline, "forecast_of", lambda config: Forecast({}))
    monkeypatch.setattr(pipeline, "_show_summary", lambda config: None)
    monkeypatch.setattr(pipeline, "_show_words", lambda config, *shown: ran.append(shown))
    return ran


def named(stages):
    """Return the stages alone, without the words shown."""
    return [(name, config) for name, config in stages if name in STAGES]


def recipe(*overrides):
    return load_config(RunConfig, Path(RECIPE), overrides)


def test_stages_run_in_order_with_their_directories_and_inputs_of_earlier_stages(stages, tmp_path):
    assert pipeline.run(recipe(f"output_dir={tmp_path}")) == tmp_path
    assert [name for name, _ in named(stages)] == ["sft", "reward_model", "ppo", "evaluate"]
    configs = dict(stages)
    assert [configs[name].output_dir for name in STAGES] == [str(tmp_path / name) for name in STAGES]
    assert configs["reward_model"].model.path == f"{tmp_path}/sft/policy"
    assert configs["ppo"].rewards[0].path == f"{tmp_path}/reward_model/reward_model"
    assert configs["evaluate"].policies["ppo"] == f"{tmp_path}/ppo/policy"


def test_the_seed_is_handed_to_every_stage_that_names_none(stages, tmp_path):
    pipeline.run(recipe(f"output_dir={tmp_path}", "seed=7", "ppo.seed=3"))
    assert {name: config.seed for name, config in named(stages)} == {
        "sft": 7,
        "reward_model": 7,
        "ppo": 3,
        "evaluate": 7,
    }


def test_a_stage_without_a_section_does_not_run(stages, tmp_path):
    pipeline.run(recipe(f"output_dir={tmp_path}", "ppo=null", "evaluate=null"))
    assert [name for name, _ in named(stages)] == ["sft", "reward_model"]


@pytest.mark.slow
def test_the_policy_speaks_before_training_after_sft_and_after_ppo(stages, tmp_path):
    pipeline.run(recipe(f"output_dir={tmp_path}", "sft.model.random_init=false"))
    sft, ppo = str(tmp_path / "sft"), str(tmp_path / "ppo")
    assert [name if name in STAGES else (name, what) for name, what in stages] == [
        ("before training", "data/tiny_model"),
        "sft",
        ("after SFT", sft),
        "reward_model",
        "ppo",
        ("after PPO", ppo),
        "evaluate",
    ]


def test_random_weights_have_no_words_and_a_complete_stage_does_not_speak_again(stages, tmp_path):
    for name in ("sft", "ppo"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "complete.json").touch()
    pipeline.run(recipe(f"output_dir={tmp_path}"))
    assert [name for name, _ in stages] == list(STAGES)


def with_leaky_prompts(path, num):
    """Return overrides whose evaluation has `num` prompts of PPO, and one prompt that the recipe has anyway."""
    known = Path("data/ppo_prompts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:num]
    fresh = Path("data/heldout_prompts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:1]
    (path / "leaky.jsonl").write_text("".join([*known, *fresh]), encoding="utf-8")
    return [f"output_dir={path}", f"evaluate.prompts.path={path / 'leaky.jsonl'}"]


@pytest.mark.slow
def test_prompts_of_the_evaluation_that_ppo_trains_on_are_counted_before_the_first_stage(stages, tmp_path, capsys):
    told = "3 of 4 prompts of evaluate are also in the training data"
    overrides = with_leaky_prompts(tmp_path, 3)
    pipeline.run(recipe(*overrides))
    said = capsys.readouterr().out
    assert f"warning: {told}" in said.split("== sft")[0]
    ran = len(stages)
    with pytest.raises(DataError, match=told):
        pipeline.run(recipe(*overrides, "ppo.on_overlap=error"))
    assert len(stages) == ran
    pipeline.run(recipe(f"output_dir={tmp_path}", "ppo.on_overlap=error"))
    assert "also in the training data" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_profile_is_handed_to_the_stages_that_train(monkeypatch, tmp_path):
    given = {}

    def stage(name):
        return lambda config, **options: given.update({name: options}) or Path(config.output_dir)

    monkeypatch.setattr(pipeline, "_FUNCTIONS", {name: stage(name) for name in STAGES})
    monkeypatch.setattr(pipeline, "forecast_of", lambda config: Forecast({}))
    monkeypatch.setattr(pipeline, "_show_summary", lambda config: None)
    monkeypatch.setattr(pipeline, "_show_words", lambda config, *shown: None)
    pipeline.run(recipe(f"output_dir={tmp_path}"), profile=True)
    asked = {"profile": True}
    assert given == {"sft": asked, "reward_model": asked, "ppo": asked, "evaluate": {}}
    pipeline.run(recipe(f"output_dir={tmp_path}"))
    assert given == {name: {} for name in STAGES}


def test_a_stage_that_fails_ends_the_run(stages, monkeypatch, tmp_path):
    def fails(config):
        raise DataError("pairs.jsonl:3: no chosen")

    monkeypatch.setitem(pipeline._FUNCTIONS, "reward_model", fails)
    with pytest.raises(DataError, match="pairs.jsonl:3"):
        pipeline.run(recipe(f"output_dir={tmp_path}"))
    assert [name for name, _ in named(stages)] == ["sft"]


def test_the_run_says_how_long_it_will_take_and_how_right_that_was(stages, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pipeline, "forecast_of", forecast_of)
    pipeline.run(recipe(f"output_dir={tmp_path}"))
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"about \d+ (s|min) here: sft \S+, reward model \S+, ppo \S+, evaluation \S+", lines[0])
    for name in STAGES:
        assert any(re.match(rf"== {name}, about \d+ (s|min)", line) for line in lines)
        assert any(re.match(rf"== {name}: .* after 0 s \(forecast at the start: \d+ s\)", line) for line in lines)


def test_only_one_process_speaks(stages, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RANK", "1")
    pipeline.run(recipe(f"output_dir={tmp_path}"))
    assert capsys.readouterr().out == ""


def run_twice(path):
    """Return the exit statuses of a run whose reward is broken, of the mended run, and of the same again."""
    reward = path / "my.py"
    arguments = ["run", "--config", RECIPE, f"output_dir={path / 'run'}", *QUICK]
    arguments += [f"ppo.rewards=[{{kind: function, path: '{reward}:score'}}]"]
    reward.write_text("def score(prompts, completions, **columns):\n    raise KeyError('broken')\n")
    yield main(arguments)
    reward.write_text("def score(prompts, completions, **columns):\n    return [float(len(c)) for c in completions]\n")
    yield main(arguments)
    yield main(arguments)


@contextmanager
def no_connections():
    """Yield the addresses beyond this machine that are asked for, each of which is refused."""
    asked = []

    def guarded(call, place):
        def checked(*arguments, **options):
            address = arguments[place]
            host = address[0] if isinstance(address, tuple) else address
            if host not in HERE and not str(host).startswith("/"):  # a path is a socket of this machine
                asked.append(address)
                raise OSError(f"a test may not ask for {address}")
            return call(*arguments, **options)

        return checked

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # what asks the hub shall be seen
        for name in ("connect", "connect_ex"):
            patched.setattr(socket.socket, name, guarded(getattr(socket.socket, name), 1))
        patched.setattr(socket, "getaddrinfo", guarded(socket.getaddrinfo, 0))
        yield asked


@pytest.fixture(scope="module")
def recipe_run(tmp_path_factory, root):
    path = tmp_path_factory.mktemp("recipe")
    seen, said = [], io.StringIO()
    with chdir(root), redirect_stdout(said), no_connections() as asked:
        for status in run_twice(path):
            complete = [name for name in STAGES if (path / "run" / name / "complete.json").exists()]
            times = {file: file.stat().st_mtime_ns for file in (path / "run").rglob("*") if file.is_file()}
            seen.append((status, complete, times))
    (path / "said.txt").write_text(said.getvalue())
    (path / "asked.json").write_text(json.dumps(asked))
    return path / "run", seen


@pytest.mark.slow
def test_a_broken_stage_leaves_the_earlier_ones_complete(recipe_run):
    status, complete, _ = recipe_run[1][0]
    assert status == 5
    assert complete == ["sft", "reward_model"]


@pytest.mark.slow
def test_the_mended_run_goes_on_where_it_broke(recipe_run):
    path, ((_, _, before), (status, complete, after), _) = recipe_run
    assert status == 0 and complete == list(STAGES)
    for name in ("sft", "reward_model"):
        files = {file: time for file, time in before.items() if file.is_relative_to(path / name)}
        assert files and all(after[file] == time for file, time in files.items())


@pytest.mark.slow
def test_no_stage_opens_a_connection(recipe_run):
    assert json.loads((recipe_run[0].parent / "asked.json").read_text()) == []


def test_a_connection_would_be_seen():
    with no_connections() as asked:
        for call in (lambda: socket.create_connection(("192.0.2.1", 9)), lambda: socket.getaddrinfo("a.invalid", 80)):
            with pytest.raises(OSError, match="a test may not ask"):
                call()
    assert len(asked) == 2


@pytest.mark.slow
def test_a_complete_run_does_nothing_again(recipe_run):
    _, (_, (_, _, before), (status, _, after)) = recipe_run
    assert status == 0 and after == before


@pytest.mark.slow
def test_the_words_follow_the_prompts_of_the_evaluation_and_cannot_move_the_cursor(recipe_run):
    said = (recipe_run[0].parent / "said.txt").read_text()
    lines = said.splitlines()
    prompts = [json.loads(line)["prompt"] for line in Path("data/heldout_prompts.jsonl").read_text().splitlines()[:3]]
    for moment in ("after SFT", "after PPO"):
        start = lines.index(f"the policy {moment}:") + 1
        assert [line.split(" ... ")[0].strip() for line in lines[start : start + 3]] == prompts
    assert said.count("the policy after SFT:") == said.count("the policy after PPO:") == 1
    assert not any(ord(character) < 32 for line in lines for character in line)


@pytest.mark.slow
def test_a_run_ends_with_a_page_about_it(recipe_run):
    page = (recipe_run[0] / "report.html").read_text(encoding="utf-8")
    for part in ("Report of run", 'id="ppo-objective-scores"', "Comparison of sft, ppo", 'id="what-ran"'):
        assert part in page


@pytest.mark.slow
def test_a_page_that_cannot_be_written_is_said_and_fails_nothing(stages, tmp_path, capsys):
    assert pipeline.run(recipe(f"output_dir={tmp_path}")) == tmp_path
    assert "report: not written: " in capsys.readouterr().out  # these stages leave no files


@pytest.mark.slow
def test_overrides_reach_the_stages(recipe_run):
    path, _ = recipe_run
    saved = yaml.safe_load((path / "ppo" / "config.yaml").read_text())
    assert saved["kl_coef"] == 0.1 and saved["rewards"][0]["kind"] == "function" and saved["seed"] == 7
    assert len((path / "ppo" / "metrics.jsonl").read_text().splitlines()) == 2
    comparison = json.loads((path / "evaluate" / "comparison.json").read_text())
    assert set(comparison["policies"]) == {"sft", "ppo"}

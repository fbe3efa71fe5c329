import json
import math
import signal
import subprocess
import sys
import time
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.config import SftConfig
from rlhf.config.reading.loader import load_config
from rlhf.errors import Terminated
from rlhf.sft import train_sft

CONFIG = Path("configs/smoke/sft.yaml")
STEPS = 30
pytestmark = pytest.mark.usefixtures("in_the_repository")


def overrides(output_dir, *more, steps=STEPS):
    return ["epochs=null", f"steps={steps}", "checkpoints.every=8", f"output_dir={output_dir}", *more]


def sft(output_dir, *more, steps=STEPS):
    return load_config(SftConfig, CONFIG, overrides(output_dir, *more, steps=steps))


def command(*arguments):
    return [sys.executable, *arguments, "-m", "rlhf", "sft", "--config", str(CONFIG)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, root):
    """A run that was not stopped."""
    path = tmp_path_factory.mktemp("whole") / "sft"
    with chdir(root):
        train_sft(sft(path))
    return path


def heldout():
    for line in Path("data/sft_eval.jsonl").read_text().splitlines():
        row = json.loads(line)
        yield row["prompt"], row["completion"]


@torch.no_grad()
def slow_heldout_loss(policy, *, on_prompt=False):
    """Score every completion token, EOS included, one row at a time with the model as anyone loads it."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(policy), AutoTokenizer.from_pretrained(policy)
    total, count = 0.0, 0
    for prompt, completion in heldout():
        first = tokenizer(prompt)["input_ids"]
        second = [*tokenizer(completion, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        logprobs = model(torch.tensor([first + second])).logits[0].double().log_softmax(-1)
        learned = (first + second)[1:] if on_prompt else second
        offset = len(first) + len(second) - len(learned)
        total -= sum(float(logprobs[offset + place - 1, token]) for place, token in enumerate(learned))
        count += len(learned)
    return total / count


def test_it_learns_and_perplexity_is_the_exponential_of_the_loss(whole, on_disk):
    metrics = on_disk.timeless(whole)
    assert [row["step"] for row in metrics] == list(range(1, STEPS + 1))
    assert metrics[0]["loss"] == pytest.approx(math.log(488), abs=0.2)  # the vocabulary has 488 entries
    assert metrics[-1]["loss"] < 0.6 * metrics[0]["loss"]
    evaluated = [row for row in metrics if "eval/loss" in row]
    assert [row["step"] for row in evaluated] == [13, 26, STEPS]
    assert evaluated[-1]["eval/loss"] < evaluated[0]["eval/loss"]
    for row in evaluated:
        assert row["eval/perplexity"] == pytest.approx(math.exp(row["eval/loss"]))


def test_the_saved_policy_loads_as_an_ordinary_model_and_has_the_loss_that_was_logged(whole, on_disk):
    assert slow_heldout_loss(whole / "policy") == pytest.approx(on_disk.timeless(whole)[-1]["eval/loss"], rel=1e-5)


def test_loss_on_all_scores_the_prompt_too(tmp_path, on_disk):
    policy = train_sft(sft(tmp_path / "sft", "loss_on=all", steps=2))
    all_tokens = on_disk.timeless(tmp_path / "sft")[-1]["eval/loss"]
    assert all_tokens == pytest.approx(slow_heldout_loss(policy, on_prompt=True), rel=1e-5)
    assert abs(all_tokens - slow_heldout_loss(policy)) > 1e-3


@pytest.mark.slow
def test_the_seed_draws_the_initial_weights(tmp_path, on_disk):
    losses = []
    for seed in (1, 2):
        train_sft(
            sft(tmp_path / str(seed), f"seed={seed}", "batch_size=200", steps=1)
        )  # one batch: order plays no part
        losses.append(on_disk.timeless(tmp_path / str(seed))[0]["loss"])
    assert losses[0] != pytest.approx(losses[1], rel=1e-5)


def test_stopped_by_a_signal_and_resumed_it_ends_in_the_same_bytes(whole, tmp_path, stopped_before, on_disk):
    with stopped_before(4, "signal"), pytest.raises(Terminated):
        train_sft(sft(tmp_path / "sft"))
    assert (tmp_path / "sft" / "checkpoints" / "step-000005").is_dir()
    train_sft(sft(tmp_path / "sft"))
    assert on_disk.contents(tmp_path / "sft" / "policy") == on_disk.contents(whole / "policy")
    assert on_disk.timeless(tmp_path / "sft") == on_disk.timeless(whole)


@pytest.mark.slow
def test_after_a_crash_it_goes_on_from_the_checkpoint_and_ends_in_the_same_bytes(
    whole, tmp_path, stopped_before, capsys, on_disk
):
    with stopped_before(20, "crash"), pytest.raises(RuntimeError):
        train_sft(sft(tmp_path / "sft"))
    capsys.readouterr()
    train_sft(sft(tmp_path / "sft"))
    assert "resuming from" in (out := capsys.readouterr().out) and "step-000016" in out
    assert on_disk.contents(tmp_path / "sft" / "policy") == on_disk.contents(whole / "policy")
    assert on_disk.timeless(tmp_path / "sft") == on_disk.timeless(whole)


@pytest.mark.slow
def test_sigterm_ends_the_command_with_143_and_the_same_command_goes_on(whole, tmp_path, on_disk):
    path = tmp_path / "sft"
    process = subprocess.Popen(
        [*command(), *overrides(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while not ((path / "metrics.jsonl").exists() and rows_so_far(path) >= 2):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 143, errors
    assert "SIGTERM: stopping after this step" in errors and "error: stopped by a signal after step" in errors
    assert "Traceback" not in errors
    train_sft(sft(path))
    assert on_disk.contents(path / "policy") == on_disk.contents(whole / "policy")
    assert on_disk.timeless(path) == on_disk.timeless(whole)


def rows_so_far(path):
    return (path / "metrics.jsonl").read_text().count("\n")


# eps is large, so that the update lr * g / (|g| + eps) follows small differences of the gradient smoothly.
# Small microbatches, so that each process has several of a batch.
TWO = (
    "microbatch_tokens=64",
    "optimizer.eps=1e-3",
    "optimizer.warmup_fraction=0",
    "optimizer.schedule=constant",
    "eval_data=null",
)


@pytest.fixture(scope="module")
def two(tmp_path_factory, root, free_port, environment):
    """The same two updates by two processes under `accelerate launch`, and by one."""
    path = tmp_path_factory.mktemp("two")
    # --multi_gpu, because without it accelerate starts one process on a machine without GPU.
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port())]
    done = subprocess.run(
        [*command(*launch), *overrides(path / "two", *TWO, "expected_processes=2", steps=2)],
        capture_output=True,
        text=True,
        cwd=root,
        timeout=250,
        env={**environment, "ACCELERATE_USE_CPU": "true"},
    )
    assert done.returncode == 0, done.stderr
    with chdir(root):
        train_sft(sft(path / "one", *TWO, steps=2))
    return path, done.stdout


@pytest.mark.slow
def test_two_processes_take_the_same_steps_as_one(two, on_disk):
    path, _ = two
    one, both = on_disk.timeless(path / "one"), on_disk.timeless(path / "two")
    assert [row["step"] for row in both] == [1, 2]
    for mine, theirs in zip(both, one, strict=True):
        assert mine.keys() == theirs.keys()
        # Only the order of float32 sums differs: of a few hundred terms, 300 * 2**-24 = 2e-5 at most.
        assert mine == pytest.approx(theirs, rel=2e-5)
    first, second = (load_file(path / name / "policy" / "model.safetensors") for name in ("two", "one"))
    for name, tensor in first.items():
        # Two updates of at most lr * dg / eps = 1e-2 * 1e-6 / 1e-3 = 1e-5; the updates themselves are up to 2e-2.
        assert torch.allclose(tensor, second[name], rtol=0.0, atol=2e-5), name


@pytest.mark.slow
def test_of_two_processes_one_speaks_and_writes(two, on_disk):
    path, output = two
    assert output.count("2 process(es) on cpu") == 1
    assert output.count("results:") == 1
    assert set(on_disk.contents(path / "two")) == set(on_disk.contents(path / "one"))


def test_an_adapter_run_saves_an_adapter_that_peft_loads(whole, tmp_path, on_disk):
    more = [f"model.path={whole / 'policy'}", "model.random_init=false", "model.lora={r: 4, dropout: 0.1}"]
    policy = train_sft(sft(tmp_path / "sft", *more, steps=3))
    assert (policy / "adapter_model.safetensors").is_file() and not (policy / "model.safetensors").exists()
    model = AutoPeftModelForCausalLM.from_pretrained(policy)
    base = AutoModelForCausalLM.from_pretrained(whole / "policy")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), model.disable_adapter():
        assert torch.equal(model(ids).logits, base(ids).logits)
    with torch.no_grad():
        assert not torch.equal(model(ids).logits, base(ids).logits)
    assert on_disk.timeless(tmp_path / "sft")[-1]["eval/loss"] < on_disk.timeless(whole)[-1]["eval/loss"] + 0.5


@pytest.mark.slow
def test_an_adapter_run_with_dropout_resumes_in_the_same_bytes(whole, tmp_path, stopped_before, on_disk):
    more = [f"model.path={whole / 'policy'}", "model.random_init=false", "model.lora={r: 4, dropout: 0.5}"]
    more += ["checkpoints.every=2"]
    train_sft(sft(tmp_path / "a", *more, steps=4))
    with stopped_before(3, "crash"), pytest.raises(RuntimeError):
        train_sft(sft(tmp_path / "b", *more, steps=4))
    train_sft(sft(tmp_path / "b", *more, steps=4))
    assert on_disk.contents(tmp_path / "a" / "policy") == on_disk.contents(tmp_path / "b" / "policy")
    assert on_disk.timeless(tmp_path / "a") == on_disk.timeless(tmp_path / "b")


@pytest.mark.slow
def test_bfloat16_learns_and_saves_the_float32_masters(tmp_path, on_disk):
    policy = train_sft(sft(tmp_path / "sft", "model.precision=bfloat16", steps=STEPS))
    metrics = on_disk.timeless(tmp_path / "sft")
    assert metrics[-1]["loss"] < 0.6 * metrics[0]["loss"]
    saved = load_file(policy / "model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in saved.values())
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in saved.values())


@pytest.mark.slow
def test_a_profile_tells_where_the_time_went_and_changes_nothing_else(whole, tmp_path, capsys, on_disk):
    train_sft(sft(tmp_path / "sft"), profile=True)
    assert on_disk.contents(tmp_path / "sft" / "policy") == on_disk.contents(whole / "policy")
    told = [
        {name for name in row if name.startswith(("time/", "profile/"))} for row in on_disk.timeless(tmp_path / "sft")
    ]
    assert {"time/forward", "time/backward", "time/optimizer", "time/other", "profile/flop_utilisation"} <= told[0]
    plain = [
        {name: row[name] for name in row.keys() - new}
        for row, new in zip(on_disk.timeless(tmp_path / "sft"), told, strict=True)
    ]
    assert plain == on_disk.timeless(whole)
    phases = json.loads((tmp_path / "sft" / "profile.json").read_text())["phases"]
    assert all(phases[name]["flops"] > 0 for name in ("forward", "backward"))
    assert "sft: profile of" in capsys.readouterr().out and not (whole / "profile.json").exists()

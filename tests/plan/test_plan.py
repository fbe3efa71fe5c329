"""`rlhf plan` as a user calls it."""

import pytest

from rlhf.cli import main

CONFIG = ["--config", "configs/quickstart/ppo.yaml"]
QUANTIZED = ([], ["model.quantize=nf4"], ["model.quantize=int8"])


def planned(capsys, *arguments):
    assert main(["plan", *CONFIG, *arguments]) == 0
    return capsys.readouterr().out


def rows(out):
    """The table, by its first column."""
    lines = [line.split() for line in out.splitlines()]
    header = next(index for index, line in enumerate(lines) if line[:1] == ["setup"])
    return {
        line[0]: dict(zip(lines[header][1:], line[1:], strict=True)) for line in lines[header + 2 :] if len(line) == 10
    }


@pytest.fixture(autouse=True)
def here(in_the_repository):
    """Paths of configs/ start at the root."""


@pytest.mark.slow
def test_a_full_8b_policy_needs_shards_and_says_what_is_too_large(capsys):
    out = planned(
        capsys, "--hardware", "8xH100-80GB", "--shape", "llama-3.1-8b", "model.trainable_layers=null",
        "microbatch_tokens=512",
    )  # fmt: skip
    table = rows(out)
    assert table["replicated"]["fits"] == "no" and table["FSDP2"]["fits"] == "yes"
    assert float(table["FSDP2"]["learn"]) < 74.5 < float(table["replicated"]["learn"])
    assert "replicated, replicated+engine: masters, gradients and moments do not fit: FSDP2 on 16 devices" in out


@pytest.mark.slow
def test_a_named_remedy_makes_it_fit(capsys):
    large = ["--hardware", "8xH100-80GB", "--shape", "llama-3.1-8b", "model.trainable_layers=null"]
    large += ["prompts.max_length=512", "sampling.max_new_tokens=512", "rollout_batch_size=256"]
    out = planned(capsys, *large, "microbatch_tokens=8192")
    assert "FSDP2, FSDP2+engine" in out and "activations do not fit: microbatch_tokens: 1024" in out
    assert rows(out)["FSDP2"]["fits"] == "no"
    assert rows(planned(capsys, *large, "microbatch_tokens=1024"))["FSDP2"]["fits"] == "yes"


@pytest.mark.slow
def test_a_model_that_no_device_holds_is_sent_elsewhere(capsys):
    out = planned(capsys, "--hardware", "1xL4-24GB", "--shape", "llama-3.1-70b")
    assert "each must hold the weights while it decodes" in out and "OpenRLHF, verl" in out


@pytest.mark.slow
def test_a_price_adds_the_cost_of_a_thousand_episodes(capsys):
    out = planned(capsys, "--hardware", "A100-80GB", "--shape", "smollm2-135m", "--price", "2")
    line = next(line.split() for line in out.splitlines() if line.startswith("replicated "))
    assert float(line[-1]) == pytest.approx(2 * float(line[-2]), abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hardware", "8xH1000"], "--hardware: expected NxDEVICE with a DEVICE of B200-180GB"),
        (["--hardware", "0xH100-80GB"], "found '0xH100-80GB'"),
        (["--hardware", "H100-80GB", "--price", "-1"], "--price: expected a number above 0, found -1.0"),
        (["--hardware", "H100-80GB", "model.path=/nowhere"], "/nowhere"),
        (["--hardware", "H100-80GB", "output_dir=/tmp/none", "model.path=no/such-model"], "--shape"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_line(capsys, arguments, message):
    assert main(["plan", *CONFIG, *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err


@pytest.mark.slow
def test_a_quantized_base_takes_about_a_quarter_and_is_never_in_shards(capsys):
    large = ["--hardware", "2xRTX4090-24GB", "--shape", "llama-3.1-8b", "model.trainable_layers=null"]
    large += [
        "prompts.max_length=512",
        "sampling.max_new_tokens=512",
        "sampling.batch_rows=8",
        "microbatch_tokens=1024",
    ]
    large += ["rewards=[{kind: length, at_most: 50}]", "model.lora={r: 16}"]
    plain, nf4, int8 = (rows(planned(capsys, *large, *more)) for more in QUANTIZED)
    assert set(plain) == {"replicated", "replicated+engine", "FSDP2", "FSDP2+engine"}
    assert set(nf4) == set(int8) == {"replicated", "replicated+engine"}
    # 32 blocks of 4096 x (2 x 4096 + 2 x 1024 + 3 x 14336), and 8 % that the allocator keeps beyond it.
    layers = 32 * 4096 * (2 * 4096 + 2 * 1024 + 3 * 14336)
    saved = {"nf4": 1.08 * layers * (2 - 4.5 / 8) / 2**30, "int8": 1.08 * layers * (2 - 1) / 2**30}
    least = {name: float(plain["replicated"]["sample"]) - float(table["replicated"]["sample"])
             for name, table in {"nf4": nf4, "int8": int8}.items()}  # fmt: skip
    assert least["nf4"] == pytest.approx(saved["nf4"], abs=0.011)
    assert least["int8"] == pytest.approx(saved["int8"], abs=0.02), "the scales of the rows are a thousandth"
    assert nf4["replicated"]["train"] == plain["replicated"]["train"], "operations are counted as before"


@pytest.mark.slow
def test_a_quantized_base_that_does_not_fit_is_not_sent_to_shards(capsys):
    large = ["--hardware", "2xL4-24GB", "--shape", "llama-3.1-70b", "model.trainable_layers=null"]
    out = planned(capsys, *large, "model.lora={r: 16}", "model.quantize=nf4")
    assert "the weights do not fit: quantized weights cannot be divided over devices" in out

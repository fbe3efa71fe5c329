import json
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rlhf.config import RewardModelConfig, SftConfig
from rlhf.config.reading.loader import load_config
from rlhf.data.records import Pair
from rlhf.errors import Terminated
from rlhf.functional.flops import Work, training_flops
from rlhf.models.passes.matrices import model_matrices
from rlhf.models.pretrained.loading import load_scalar_lm
from rlhf.models.scalar import ScalarModel
from rlhf.reward_model import PreferenceObjective, heldout_scores, train_reward_model
from rlhf.sft import train_sft
from rlhf.training.processes import Processes

pytestmark = pytest.mark.usefixtures("in_the_repository")


def config(output_dir, *overrides):
    fixed = ["model.path=data/tiny_model", "model.random_init=true", "checkpoints.every=4", f"output_dir={output_dir}"]
    return load_config(RewardModelConfig, Path("configs/smoke/reward_model.yaml"), [*fixed, *overrides])


@pytest.fixture(scope="module")
def whole(tmp_path_factory, root):
    """A run that was not stopped."""
    path = tmp_path_factory.mktemp("whole") / "reward_model"
    with chdir(root):
        train_reward_model(config(path))
    return path


class LastToken(nn.Module):
    """A model whose score is the last token divided by 10, so that losses can be worked by hand."""

    def __init__(self):
        super().__init__()
        self.classifier = SimpleNamespace(device=torch.device("cpu"), base_model=None)
        self.scale = nn.Parameter(torch.tensor(0.1))

    def forward(self, input_ids, mask):
        return input_ids.gather(1, mask.sum(1, keepdim=True) - 1).squeeze(1).float() * self.scale


PAIRS = [Pair((1, 30), (1, 2, 3, 10), 0.0), Pair((5, 5, 20), (40,), 1.5)]
# Scores 3.0 and 1.0 (lead 2.0), and 2.0 and 4.0 (lead -2.0, behind by 3.5 with the margin).
# -log sigmoid(2.0) = log(1 + e^-2.0) = 0.126928, -log sigmoid(-3.5) = log(1 + e^3.5) = 3.529750.


def test_the_loss_by_hand_with_margin_and_centring():
    plain = PreferenceObjective(LastToken(), PAIRS, 0, 0.0)
    loss, statistics = plain.loss([0, 1], 2.0)
    assert loss.item() == pytest.approx((0.126928 + 3.529750) / 2, abs=1e-5)
    assert {name: float(value) for name, value in statistics.items()} == pytest.approx(
        {"accuracy": 1.0, "margin": 0.0}, abs=1e-5
    )
    # Centring adds 0.01 * mean of (3 + 1)^2 and (2 + 4)^2 = 0.01 * 26.
    centred, _ = PreferenceObjective(LastToken(), PAIRS, 0, 0.01).loss([0, 1], 2.0)
    assert centred.item() == pytest.approx(loss.item() + 0.26, abs=1e-5)


def test_losses_of_microbatches_add_up_to_the_mean_over_the_global_batch():
    objective = PreferenceObjective(LastToken(), PAIRS, 0, 0.01)
    parts = [objective.loss([item], 2.0)[0].item() for item in (0, 1)]
    assert sum(parts) == pytest.approx(objective.loss([0, 1], 2.0)[0].item(), rel=1e-6)


def test_a_pair_costs_twice_its_longer_side():
    assert PreferenceObjective(LastToken(), PAIRS, 0, 0.0).lengths() == [8, 6]


def test_the_cost_of_pairs_counts_both_sides_without_padding_and_a_score_each(root):
    model = ScalarModel(load_scalar_lm(str(root / "data/tiny_model"), random_init=True, new_head=True))
    matrices = model_matrices(model.classifier, [model.classifier.score])
    # Sequences of 2, 4, 3 and 1 tokens, which attend to 3 + 10 + 6 + 1.
    expected = training_flops(matrices, Work(tokens=10, pairs=20, predictions=4))
    assert PreferenceObjective(model, PAIRS, 0, 0.0).cost([0, 1]) == (10, expected)
    assert expected["backward"] == 2 * expected["forward"] > 0


def test_loss_and_gradient_do_not_depend_on_the_cut_or_on_padding(root):
    results = []
    for cut, pad in (([[0, 1]], 0), ([[0], [1]], 0), ([[0, 1]], 99)):
        model = ScalarModel(load_scalar_lm(str(root / "data/tiny_model"), random_init=True, new_head=True))
        objective = PreferenceObjective(model, PAIRS, pad, 0.1)
        for items in cut:
            objective.loss(items, 2.0)[0].backward()
        results.append([parameter.grad for parameter in model.parameters()])
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            # A few dozen float32 terms in another order: 40 * 2**-24 of the largest.
            assert torch.allclose(mine, theirs, rtol=0.0, atol=3e-6 * float(mine.abs().max() + 1e-9))


def test_heldout_numbers_by_hand():
    run = SimpleNamespace(processes=Processes())
    numbers = heldout_scores(PreferenceObjective(LastToken(), PAIRS, 0, 0.0), 100, run)
    # Leads 2 and -2: loss (0.126928 + 2.126928) / 2; both have confidence 0.880797 and half of them is right.
    expected = {"eval/accuracy": 0.5, "eval/loss": 1.126928, "eval/margin": 0.0, "eval/calibration_error": 0.380797}
    assert numbers == pytest.approx(expected, abs=1e-5)
    assert heldout_scores(PreferenceObjective(LastToken(), [], 0, 0.0), 100, run) == {}


def test_separable_pairs_are_ranked_perfectly_and_the_loss_falls(whole, on_disk):
    metrics = on_disk.timeless(whole)
    assert metrics[-1]["eval/accuracy"] == 1.0 and metrics[-1]["accuracy"] == 1.0
    assert metrics[-1]["loss"] < 0.1 * metrics[0]["loss"]
    assert metrics[-1]["eval/margin"] > 1.0 and 0.0 <= metrics[-1]["eval/calibration_error"] < 0.5


def demonstrations(tokenizer):
    for line in Path("data/sft_eval.jsonl").read_text().splitlines():
        row = json.loads(line)
        ids = (
            tokenizer(row["prompt"])["input_ids"] + tokenizer(row["completion"], add_special_tokens=False)["input_ids"]
        )
        yield torch.tensor([[*ids, tokenizer.eos_token_id]])


@torch.no_grad()
def scored_demonstrations(directory):
    """Load a reward model as anyone does, and score every demonstration alone."""
    model = ScalarModel(load_scalar_lm(str(directory), new_head=False))
    rows = demonstrations(AutoTokenizer.from_pretrained(directory))
    return model, torch.cat([model(ids, torch.ones_like(ids, dtype=torch.bool)) for ids in rows])


def test_the_mean_over_demonstrations_is_zero_after_saving_and_loading(whole):
    directory = whole / "reward_model"
    model, scores = scored_demonstrations(directory)
    assert scores.std() > 0.1 and abs(model.score_mean) > 1e-3
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-5)


def test_it_is_an_ordinary_classifier_with_one_label_that_reads_the_last_token(whole):
    directory = whole / "reward_model"
    theirs, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(directory),
        AutoTokenizer.from_pretrained(directory),
    )
    ours = ScalarModel(load_scalar_lm(str(directory), new_head=False))
    ids = next(demonstrations(tokenizer))
    assert theirs.config.num_labels == 1
    with torch.no_grad():
        raw = theirs(ids).logits[0, 0].item()
        score = ours(ids, torch.ones_like(ids, dtype=torch.bool)).item()
    assert score == pytest.approx(raw - theirs.config.score_mean, abs=1e-5)


@pytest.mark.sweep
@pytest.mark.parametrize(("how", "error"), [("signal", Terminated), ("crash", RuntimeError)])
def test_stopped_and_resumed_it_ends_in_the_same_bytes(whole, tmp_path, stopped_before, how, error, on_disk):
    path = tmp_path / "reward_model"
    with stopped_before(6, how), pytest.raises(error):
        train_reward_model(config(path))
    train_reward_model(config(path))
    assert on_disk.contents(path / "reward_model") == on_disk.contents(whole / "reward_model")
    assert on_disk.timeless(path) == on_disk.timeless(whole)


def test_trained_again_from_a_reward_model_the_old_mean_is_forgotten(whole, tmp_path):
    more = [f"model.path={whole / 'reward_model'}", "model.random_init=false", "epochs=null", "steps=1"]
    directory = train_reward_model(config(tmp_path / "reward_model", *more))
    _, scores = scored_demonstrations(directory)
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.slow
def test_with_an_adapter_a_whole_model_is_saved_that_loads_again_and_ranks(tmp_path, on_disk):
    sft = ["epochs=null", "steps=1", "eval_data=null", f"output_dir={tmp_path / 'sft'}"]
    policy = train_sft(load_config(SftConfig, Path("configs/smoke/sft.yaml"), sft))
    more = [
        f"model.path={policy}",
        "model.random_init=false",
        "model.lora={r: 4}",
        "optimizer.learning_rate=1e-2",
        "epochs=6",
    ]
    directory = train_reward_model(config(tmp_path / "reward_model", *more))
    metrics = on_disk.timeless(tmp_path / "reward_model")
    assert metrics[-1]["eval/accuracy"] == 1.0
    _, scores = scored_demonstrations(directory)
    # The merged sum W + B A is rounded once more than x W + (x A) B, on scores of order 10.
    assert scores.mean().item() == pytest.approx(0.0, abs=1e-3)
    frozen, saved = load_file(policy / "model.safetensors"), load_file(directory / "model.safetensors")
    assert torch.equal(frozen["model.embed_tokens.weight"], saved["model.embed_tokens.weight"])
    assert not torch.equal(frozen["model.layers.0.mlp.up_proj.weight"], saved["model.layers.0.mlp.up_proj.weight"])


@pytest.mark.slow
def test_bfloat16_keeps_the_head_in_float32_and_ranks(tmp_path, on_disk):
    train_reward_model(config(tmp_path / "reward_model", "model.precision=bfloat16"))
    assert on_disk.timeless(tmp_path / "reward_model")[-1]["eval/accuracy"] == 1.0

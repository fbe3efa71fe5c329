"""Tests of our workers (benchmarks/workers/) and of what the sides read, on a tiny random model."""

import json

import pytest
import torch

import materials
import ppo_vs_trl
import sft_vs_trl
import sides
from rlhf.data.reading.text_files import write_jsonl
from rlhf.models.pretrained.loading import load_scalar_lm
from rlhf.sft import NextTokenObjective
from rlhf.training.optimizer import Optimizer
from rlhf.training.supervised import SupervisedSteps
from stopwatch import Stopwatch
from workers import our_ppo, our_sft


@pytest.fixture(autouse=True)
def unwrapped(monkeypatch):
    """A worker replaces methods for the life of its process; here they are put back."""
    for owner, name in (
        (torch.Tensor, "backward"),
        (NextTokenObjective, "loss"),
        (Optimizer, "step"),
        (SupervisedSteps, "step"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))


def test_every_worker_that_a_side_names_is_there():
    options = ppo_vs_trl.arguments().parse_args([])
    named = [peer.side({}) for peer in ppo_vs_trl.PEERS]
    named += [ppo_vs_trl._our_side("shared", {}, options), sft_vs_trl._our_side({}, options)]
    named.append(sft_vs_trl._their_side(True, {}, options))
    files = {sides.HERE / side.worker for side in named}
    assert len(files) == 5 and all(file.is_file() for file in files)


def test_texts_have_the_lengths_that_were_asked_for(model_directory, tiny_tokenizer):
    texts, ids = materials.Texts(model_directory, seed=1).of_lengths([3, 11])
    assert [len(row) for row in ids] == [3, 11]
    assert [tiny_tokenizer.encode(text) for text in texts] == ids


def test_the_reward_model_has_the_policys_weights_and_one_label(model_directory, tmp_path, tiny_model):
    directory = materials.make_reward_model(model_directory, tmp_path / "reward", seed=1)
    reward = load_scalar_lm(directory, new_head=False)
    assert torch.equal(reward.model.embed_tokens.weight, tiny_model("llama").model.embed_tokens.weight)
    assert reward.score.weight.shape == (1, 32)
    assert (tmp_path / "reward" / "tokenizer.json").is_file()


@pytest.mark.sweep
@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_a_ppo_worker_times_its_updates_and_phases(critic, model_directory, tmp_path):
    options = ppo_vs_trl.arguments().parse_args(["--model", model_directory])
    size = ppo_vs_trl.Size(rows=4, prompt_tokens=5, new_tokens=6, epochs=2, minibatches=2)
    work = ppo_vs_trl.prepared(tmp_path, size, options)
    work |= {"dtype": "float32", "critic": critic, "settings": ["gamma=0.9"]}
    watch = Stopwatch()
    found = our_ppo.measure(json.loads(json.dumps(work)), watch)
    assert found == {"tokens": 4 * 6, "compute": "float32"}
    assert len(watch.seconds) == 2
    phases = {"other", "generation", "reward", "reference", "values", "forward", "backward", "optimizer"}
    assert set(watch.phases[1]) == phases
    assert sum(watch.phases[1].values()) == pytest.approx(watch.seconds[1])


def test_a_ppo_worker_refuses_prompts_that_the_other_side_would_not_read(model_directory, tmp_path):
    options = ppo_vs_trl.arguments().parse_args(["--model", model_directory])
    work = ppo_vs_trl.prepared(tmp_path, ppo_vs_trl.Size(rows=2, prompt_tokens=5, new_tokens=2), options)
    work |= {"dtype": "float32", "critic": "shared", "settings": []}
    work["prompt_ids"][1][0] += 1
    with pytest.raises(SystemExit, match="the token ids that the other side reads"):
        our_ppo.measure(work, Stopwatch())


def sft_work(model_directory, tmp_path):
    case = sft_vs_trl.Case(name="c", shortest=4, longest=9, batches=2, packings=(False,), goal=(1, 1))
    texts, ids = materials.Texts(model_directory, 1).of_lengths(case.lengths(1))
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in texts])
    work = {"policy": model_directory, "texts": path, "rows": ids, "batch_size": 8, "passes": 2, "seed": 1}
    return {**work, "dtype": "float32", "settings": []}


def test_an_sft_worker_times_each_pass_over_the_rows(model_directory, tmp_path):
    watch = Stopwatch()
    assert our_sft.measure(sft_work(model_directory, tmp_path), watch) == {"steps_per_pass": 2, "compute": "float32"}
    assert len(watch.seconds) == 2
    assert {"forward", "backward", "optimizer"} <= set(watch.phases[1])


def test_an_sft_worker_refuses_rows_that_the_other_side_would_not_read(model_directory, tmp_path):
    work = sft_work(model_directory, tmp_path)
    work["rows"][0].append(50)
    with pytest.raises(SystemExit, match="the token ids that the other side reads"):
        our_sft.measure(work, Stopwatch())


def test_unequal_rows_fill_whole_batches_and_one_is_as_long_as_allowed():
    for case in sft_vs_trl.CASES:
        lengths = case.lengths(1)
        assert len(lengths) == case.batches * sft_vs_trl.BATCH_SIZE
        assert max(lengths) == case.longest and min(lengths) >= case.shortest

"""Tests of rlhf.stage.rewards: rewards named in a config alone, in runs of PPO."""

import importlib.util
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForSequenceClassification, DistilBertConfig, PreTrainedTokenizerFast

from rlhf.config import PPOConfig
from rlhf.config.reading.loader import load_config
from rlhf.ppo import train_ppo
from rlhf.ppo.run.prompt_source import ListedPrompts
from rlhf.ppo.run.report import step_metrics
from rlhf.ppo.run.steps import PPOSteps
from rlhf.ppo.starts.report import reset_metrics
from rlhf.stage.rewards import reward_inputs

MINE = """
def every_third_is_nan(completions):
    return [float("nan") if index % 3 == 1 else float(index) for index, _ in enumerate(completions)]
def tokens(completion_ids):
    return [[1.0] * (len(ids) - 1) + [5.0] for ids in completion_ids]
def fails_on_a(prompts, completions):
    return [len(text) / (not prompt.startswith("A")) for prompt, text in zip(prompts, completions)]
def length(completions):
    return [float(len(text)) for text in completions]
"""


@pytest.fixture(scope="module")
def mine(workshop: Path) -> str:
    (workshop / "mine.py").write_text(MINE)
    return f"{workshop}/mine.py"


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sentiment classifier as others publish them: an encoder with two labels and a tokenizer of whole words."""
    path = tmp_path_factory.mktemp("sentiment")
    words = ["[PAD]", "[UNK]", "the", "film", "is", "good", "bad"]
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(path)
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(words), dim=16, n_layers=1, n_heads=2, hidden_dim=32, initializer_range=0.5,
        id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A server that answers OpenRLHF's requests with the number of characters / 10, and NaN where the label is 3."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            pairs = zip(given["query"], given["labels"], strict=True)
            rewards = [math.nan if label == 3 else len(query) / 10 for query, label in pairs]
            body = json.dumps({"rewards": rewards}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None: ...

    serving = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}/get_reward"
    serving.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vaderSentiment") is None, reason="the extra `lexicon` is not installed")
def test_one_run_uses_every_kind(
    workshop: Path, sentiment: str, server: str, tmp_path: Path, in_the_repository: None, on_disk: ModuleType
) -> None:
    overrides = [
        f"output_dir={tmp_path}/run", f"model.path={workshop}/policy", f"rewards.0.path={workshop}/reward_model",
        f"rewards.1.models.0.path={workshop}/reward_model", f"rewards.4.url={server}",
        f"rewards.1.models.1={{path: '{sentiment}', label: POSITIVE, activation: softmax}}",
    ]  # fmt: skip
    config = load_config(PPOConfig, Path("configs/all_rewards/ppo.yaml"), overrides)
    named = {section.kind for section in config.rewards}
    assert named == {"function", "model", "ensemble", "http", "length", "repetition", "regex", "lexicon"}
    train_ppo(config)
    rows = on_disk.metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2]
    names = ["model", "ensemble", "names_a_film", "steps", "http", "length", "repetition", "regex", "lexicon"]
    for row in rows:
        assert all(f"reward/{name}/mean" in row and f"reward/{name}/std" in row for name in names)
        assert row["reward/ensemble/disagreement"] > 0 and "not_finite" not in row
        assert -1 <= row["reward/model/correlation/ensemble"] <= 1
        assert -1 <= row["reward/http/length_correlation"] <= 1 and row["reward/length/mean"] <= 0
    assert not any("failed" in key or "dropped" in key for row in rows for key in row)
    state = json.loads((tmp_path / "run/checkpoints/step-000001/state.json").read_text())
    assert set(state["reward_scales"]) == {"model"}


def test_a_sentiment_classifier_with_another_tokenizer_plugs_in_by_configuration_alone(
    tiny: ModuleType, workshop: Path, sentiment: str
) -> None:
    section = {"kind": "model", "path": sentiment, "label": "POSITIVE", "activation": "log_softmax"}
    made = tiny.parts(tiny.ppo_config(workshop, rewards=[section]))
    result = made.trainer.step(made.prompts)
    model = AutoModelForSequenceClassification.from_pretrained(sentiment).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(sentiment)
    for episode, score in zip(result.collected.episodes, result.experience.rollout.scores.tolist(), strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(episode.prompt + episode.completion, return_tensors="pt")).logits[0]
        assert score == pytest.approx(float(logits.log_softmax(-1)[1]), rel=1e-4, abs=1e-5)
    assert len(result.updates) == 4


def test_a_server_reads_special_tokens_and_labels_and_may_answer_nan(
    tiny: ModuleType, workshop: Path, server: str
) -> None:
    section = {"kind": "http", "url": server, "label_column": "label", "on_nan": "drop_episode"}
    made = tiny.parts(tiny.ppo_config(workshop, rewards=[section]))
    collected = tiny.collected(made)
    assert collected.rollout.response_mask.any(1).tolist() == [index != 3 for index in range(8)]
    texts = [made.trainer.collector.tokenizer.decode([*e.prompt_ids, *e.response_ids]) for e in collected.episodes]
    expected = [0.0 if index == 3 else len(text) / 10 for index, text in enumerate(texts)]
    assert collected.raw_scores == pytest.approx(expected)


def test_scores_of_tokens_enter_the_rewards_of_their_tokens(tiny: ModuleType, workshop: Path, mine: str) -> None:
    rewards = [{"kind": "function", "path": f"{mine}:tokens", "weight": 0.5}]
    made = tiny.parts(tiny.ppo_config(workshop, rewards=rewards))
    result = made.trainer.step(made.prompts)
    rollout, mask = result.experience.rollout, result.experience.rollout.response_mask
    assert rollout.scores.tolist() == [0.0] * 8 and len(set(mask.sum(1).tolist())) > 1
    is_last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    expected = 0.5 * mask + 2.0 * is_last
    assert torch.equal(rollout.token_scores, expected)
    # At the first step the KL is 0: what is left of the reward are the scores.
    assert torch.equal(result.experience.rewards, expected)


def dropping(mine: str) -> list[dict[str, Any]]:
    return [
        {"kind": "function", "path": f"{mine}:every_third_is_nan", "name": "script", "on_nan": "drop_episode"},
        {"kind": "length", "at_most": 0, "weight": 0.1},
    ]


def test_a_dropped_episode_leaves_the_update(tiny: ModuleType, workshop: Path, mine: str, tmp_path: Path) -> None:
    """Rows 1, 4 and 7 of 8 are dropped; whatever they hold, the update is that of the others."""
    config = tiny.ppo_config(workshop, rewards=dropping(mine), minibatches=1, score__normalise="running", epochs=1)
    made = tiny.parts(config)
    tiny.stir(made.trainer, 0.02)
    collected = tiny.collected(made)
    rollout, dropped = collected.rollout, torch.tensor([False, True, False, False, True, False, False, True])
    assert torch.equal(rollout.response_mask.any(1), ~dropped)
    for name in ("response_ids", "logprobs", "ref_logprobs", "values", "token_scores"):
        assert not getattr(rollout, name)[dropped].any(), name
    assert not rollout.scores[dropped].any() and not rollout.ended[dropped].any()
    assert sorted(int(row) for group in collected.microbatches.all() for row in group) == [0, 2, 3, 5, 6]
    assert made.trainer.collector.scorer.running.count == 5
    batch = tiny.experience(made.trainer, rollout)
    for name in ("kl", "rewards", "advantages", "returns"):
        assert not getattr(batch, name)[dropped].any(), name
    advantages = batch.advantages[rollout.response_mask]
    assert float(advantages.mean()) == pytest.approx(0, abs=1e-6)
    alone = tiny.experience(made.trainer, rollout.rows(~dropped))
    assert torch.equal(alone.advantages, batch.advantages[~dropped])
    assert made.trainer.sequence_kl(batch) == pytest.approx(made.trainer.sequence_kl(alone)) and batch.kl.any()
    before = tiny.weights(made.trainer)
    update, gradients = tiny.update(made.trainer, batch, collected.microbatches.all())
    made.trainer.optimizer.weights.load(before)
    again, expected = tiny.update(made.trainer, alone, [torch.arange(5)])
    assert update.means == pytest.approx(again.means, rel=1e-4, abs=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6)


def test_metrics_and_samples_count_the_episodes_that_are_left(
    tiny: ModuleType, workshop: Path, mine: str, tmp_path: Path, on_disk: ModuleType
) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, rewards=dropping(mine), score__missing_eos_penalty=100.0))
    steps = PPOSteps(made.trainer, ListedPrompts(made.prompts[:8], made.trainer.config), tmp_path)
    metrics = steps.step(0)
    rows = on_disk.rows(tmp_path / "step-000001.jsonl")
    kept = [row for row in rows if row["score"] is not None]
    assert len(rows) == 8 and len(kept) == 5
    assert metrics["reward/dropped_episodes"] == metrics["reward/script/not_finite"] == 3.0
    assert metrics["objective/scores"] == pytest.approx(sum(row["score"] for row in kept) / 5)
    assert metrics["val/share_ended"] == sum(row["ended"] for row in kept) / 5
    assert metrics["val/response_length"] == pytest.approx(-metrics["reward/length/mean"])
    assert metrics["val/first_ratio_deviation"] == 0.0


def test_minibatches_whose_episodes_are_all_dropped_are_left_out(tiny: ModuleType, workshop: Path, mine: str) -> None:
    """Five of eight minibatches of one episode have something to learn from."""
    made = tiny.parts(tiny.ppo_config(workshop, rewards=dropping(mine), minibatches=8, epochs=2))
    result = made.trainer.step(made.prompts)
    assert len(result.updates) == 10 and made.trainer.optimizer.num_done == 10
    assert result.updates[0].ratio_deviation == 0.0


def test_an_exception_drops_only_the_prompts_that_cause_it(tiny: ModuleType, workshop: Path, mine: str) -> None:
    rewards = [{"kind": "function", "path": f"{mine}:fails_on_a", "on_error": "drop_episode"}]
    made = tiny.parts(tiny.ppo_config(workshop, rewards=rewards))
    rollout = tiny.collected(made).rollout
    assert rollout.response_mask.any(1).tolist() == [not prompt.text.startswith("A") for prompt in made.prompts]


def test_running_scales_of_rewards_are_resumed(tiny: ModuleType, workshop: Path, mine: str, tmp_path: Path) -> None:
    rewards = [{"kind": "function", "path": f"{mine}:length", "normalise": "running"}]
    made = tiny.parts(tiny.ppo_config(workshop, rewards=rewards))
    steps = PPOSteps(made.trainer, ListedPrompts(made.prompts, made.trainer.config), tmp_path)
    steps.step(0)
    state = json.loads(json.dumps(steps.saved()[1]))
    assert state["reward_scales"]["length"]["count"] == 8.0
    other = tiny.parts(tiny.ppo_config(workshop, rewards=rewards)).trainer.collector.scorer
    other.load(state)
    assert other.state() == made.trainer.collector.scorer.state()


def test_the_files_and_models_of_rewards_are_inputs_of_the_run(tiny: ModuleType, workshop: Path) -> None:
    rewards = [
        {"kind": "function", "path": "my/file.py:name"},
        {"kind": "model", "path": "rm"},
        {"kind": "ensemble", "models": [{"path": "a"}, {"path": "b"}]},
        {"kind": "http", "url": "http://localhost/"},
        {"kind": "length", "at_most": 1},
    ]
    assert reward_inputs(tiny.ppo_config(workshop, rewards=rewards).rewards) == ["my/file.py", "rm", "a", "b"]


def test_a_dropped_episode_is_no_reset_and_no_best_of_its_own(tiny: ModuleType, workshop: Path, mine: str) -> None:
    section = {"fraction": 0.5, "demonstrations": {"kind": "own_best", "size": 8}, "cut": {"law": "uniform"}}
    rewards = [{**dropping(mine)[0], "weight": -1.0}]  # the others score below the 0 of what was dropped
    made = tiny.parts(tiny.ppo_config(workshop, rewards=rewards, reset=section))
    made.trainer.step(made.prompts)
    remembered = [best["prompt"] for best in made.trainer.resets.state()["own_best"]]
    assert remembered and not set(remembered) & {1, 4, 7}


def test_after_a_reset_scores_of_forced_tokens_count_nowhere(tiny: ModuleType, workshop: Path, mine: str) -> None:
    rewards = [{"kind": "function", "path": f"{mine}:tokens"}]
    made = tiny.parts(tiny.ppo_config(workshop, rewards=rewards, reset=tiny.reset_section(workshop, 1.0)))
    result = made.trainer.step(made.prompts)
    rollout = result.experience.rollout
    assert rollout.forced.any(1).all()
    assert torch.equal(rollout.token_scores > 0, rollout.response_mask)
    assert float(rollout.token_scores.max()) == 5.0, "the last token's own"
    metrics = reset_metrics(result, made.trainer.processes)
    expected = float(rollout.token_scores.sum()) / 8
    assert metrics["reset/scores_at_resets"] == pytest.approx(expected)
    logged = {**step_metrics(result, made.trainer.processes), **result.collected.reward_metrics}
    for name in ("objective/scores", "objective/raw_scores", "reward/tokens/mean"):
        assert logged[name] == pytest.approx(expected), name


def test_after_a_reset_texts_are_ranked_as_wholes(
    tiny: ModuleType, workshop: Path, mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = [{"kind": "function", "path": f"{mine}:tokens"}]
    made = tiny.parts(tiny.ppo_config(workshop, rewards=rewards, reset=tiny.reset_section(workshop, 1.0)))
    ranked: list[list[float]] = []
    monkeypatch.setattr(made.trainer.resets, "finish_step", lambda *given: ranked.append(given[2]))
    result = made.trainer.step(made.prompts)
    lengths = [len(episode.response_ids) for episode in result.collected.episodes]
    assert ranked == [[length + 4.0 for length in lengths]], "1 a token, and 5 for the last one"
    num_emitted = result.experience.rollout.response_mask.sum(1).tolist()
    assert result.collected.raw_scores == [num + 4.0 for num in num_emitted] != ranked[0]


def test_metrics_of_resets_leave_dropped_episodes_out(tiny: ModuleType, workshop: Path, mine: str) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, rewards=dropping(mine), reset=tiny.reset_section(workshop, 1.0)))
    result = made.trainer.step(made.prompts)
    rollout = result.experience.rollout
    kept = rollout.response_mask.any(1)
    assert torch.equal(rollout.forced.any(1), kept) and int(kept.sum()) == 5
    metrics = reset_metrics(result, made.trainer.processes)
    assert metrics["reset/share"] == 1.0 and "reset/scores_at_prompts" not in metrics
    assert metrics["reset/scores_at_resets"] == pytest.approx(float(rollout.scores[kept].mean()))

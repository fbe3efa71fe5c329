"""The engine that is a server, against one that conforms, and against everything that servers do wrong."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlhf.errors import ConfigError, EngineError
from rlhf.json_exchange import Limits
from rlhf.sampling.batched import Decoding
from rlhf.sampling.engines.calls import Calls
from rlhf.sampling.engines.protocol import Weights, known_sequences
from rlhf.sampling.engines.server import ServerEngine
from rlhf.sampling.filters import Filters

LENGTHS = (4, 6, 1)


@pytest.fixture
def policy(tiny_model: Any, tmp_path: Path) -> Any:
    """The model that is trained; the server starts with it."""
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "start")
    return model


@pytest.fixture
def fake(module: Callable[[Path], ModuleType], policy: Any, tmp_path: Path) -> Iterator[Any]:
    """The server."""
    server = module(Path(__file__).with_name("fake_vllm.py")).FakeVLLM(str(tmp_path / "start"))
    yield server
    server.close()


@pytest.fixture
def prompts(tiny_sampling: ModuleType) -> Any:
    """Prompts of unequal length."""
    return tiny_sampling.prompts(*LENGTHS)


def engine(fake: Any, tmp_path: Path, **limits: Any) -> ServerEngine:
    given = {"timeout": 30.0, "deadline": 30.0, "retries": 0, "max_response_bytes": 10**6} | limits
    return ServerEngine(Calls(fake.url, Limits(**given)), tmp_path / "weights", 0.25)


def weights(model: Any, prompts: Any) -> Weights:
    """The model's weights, as a run hands them over."""

    @torch.no_grad()
    def logprobs(known: list[list[int]]) -> list[list[float]]:
        tables = [model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1) for ids in known]
        return [
            table.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
            for table, ids in zip(tables, known, strict=True)
        ]

    return Weights(save=model.save_pretrained, vocabulary=128, known=known_sequences(prompts), logprobs=logprobs)


def decoding(tokenizer: Any, **changes: Any) -> Decoding:
    drawn = {"max_new_tokens": 5, "temperature": 0.8, "stop_strings": [], "batch_rows": 2, "eos_ids": range(40, 60)}
    return Decoding(**(drawn | changes), tokenizer=tokenizer)


def moved(model: Any) -> Any:
    """The model after a step of training."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model


def test_weights_reach_the_server_in_order_and_responses_are_drawn_from_them(
    fake: Any, policy: Any, prompts: Any, tiny_tokenizer: Any, tiny_sampling: ModuleType, tmp_path: Path
) -> None:
    made = engine(fake, tmp_path)
    for version in (1, 2):
        made.load(weights(moved(policy), prompts), version)
        assert made.version == version and fake.version.endswith(f"-{version}") and not made.is_exact
    loading = ["/pause?mode=wait", "/collective_rpc", "/reset_prefix_cache", "/update_weight_version", "/resume"]
    assert fake.calls[:6] == [*loading, "/weight_info"]
    fake.calls.clear()
    fake.requests.clear()
    forced = torch.tensor([1, 0, 0])
    found = made.sample(prompts, decoding(tiny_tokenizer), tiny_sampling.generator(1), forced)
    again = made.sample(prompts, decoding(tiny_tokenizer), tiny_sampling.generator(1), forced)
    assert (fake.calls[0], fake.calls[4]) == ("/weight_info", "/weight_info")
    assert found.responses == again.responses and len({each["seed"] for each in fake.requests[:3]}) == 3
    sent = {tuple(each["prompt"]): each["max_tokens"] for each in fake.requests}
    rows = [prompts.prompt_ids[row, :length].tolist() for row, length in enumerate(LENGTHS)]
    assert sent == {tuple(rows[0]): 4, tuple(rows[1]): 5, tuple(rows[2]): 5}
    for row, (prompt, response) in enumerate(zip(rows, found.responses, strict=True)):
        with torch.no_grad():
            logits = policy(torch.tensor([prompt + list(response)])).logits[0, len(prompt) - 1 : -1] / 0.8
        expected = logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0]
        torch.testing.assert_close(found.logprobs[row, : len(response)], expected, rtol=1e-4, atol=1e-4)
        assert bool(found.ended[row]) == (response[-1] in range(40, 60))
    assert bool(found.ended.any())


def test_a_response_ends_by_our_own_rule(
    fake: Any, policy: Any, prompts: Any, tiny_tokenizer: Any, tiny_sampling: ModuleType, tmp_path: Path
) -> None:
    made = engine(fake, tmp_path)
    made.load(weights(policy, prompts), 1)
    drawn = decoding(tiny_tokenizer, eos_ids=(), stop_strings=["e", "a", "s", "t"], filters=Filters(top_k=3))
    found = made.sample(prompts, drawn, tiny_sampling.generator(1))
    assert fake.requests[-1]["top_k"] == 3 and fake.requests[-1]["stop"] == ["e", "a", "s", "t"]
    for ids, ended in zip(found.responses, found.ended.tolist(), strict=True):
        text = tiny_tokenizer.decode(list(ids))
        assert ended == any(stop in text for stop in "east") and not any(
            stop in tiny_tokenizer.decode(list(ids[:-1])) for stop in "east"
        )


def test_each_response_is_told_as_it_arrives(
    fake: Any, policy: Any, prompts: Any, tiny_tokenizer: Any, tiny_sampling: ModuleType, tmp_path: Path
) -> None:
    """The second waits until the third has been told: two requests are under way at a time."""
    made, told, draw = engine(fake, tmp_path), dict[int, list[int]](), Calls.draw
    made.load(weights(policy, prompts), 1)
    is_third_told = threading.Event()

    def slow(self: Calls, prompt: list[int], how: Any) -> Any:
        assert len(prompt) != LENGTHS[1] or is_third_told.wait(20)
        return draw(self, prompt, how)

    def listen(row: int, ids: list[int]) -> None:
        assert threading.current_thread() is threading.main_thread()
        told[row] = ids
        if row == 2:
            is_third_told.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Calls, "draw", slow)
        found = made.sample(prompts, decoding(tiny_tokenizer), tiny_sampling.generator(1), None, listen)
    assert list(told) == [0, 2, 1] and [tuple(told[row]) for row in range(3)] == found.responses


FAULTS_OF_LOADING = {
    "wrong version": "^stale weights: engine http://.* has version 'another' after loading, expected '.*-1'",
    "half of the weights": "^wrong weights: logprobs of known sequences from engine .* nats a token from the trainer's",
    "cache kept": "^stale cache: engine .* did not reset its prefix cache",
    "no dev mode": "^no answer: engine .*: /collective_rpc: status 404 .* - start the server with VLLM_SERVER_DEV_MODE",
    "no logprobs": "^logprobs missing: engine .* for a known sequence of 6 tokens",
    "two models": r"^which model: engine .* serves .*'policy', 'b'.* - name one in engine.served_model",
    "dies": "^no answer: engine .*: /v1/completions: RemoteProtocolError",
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", list(FAULTS_OF_LOADING))
def test_weights_that_do_not_arrive_are_noticed(
    fake: Any, policy: Any, prompts: Any, tmp_path: Path, fault: str
) -> None:
    fake.faults = {fault}
    with pytest.raises(EngineError, match=FAULTS_OF_LOADING[fault]) as caught:
        engine(fake, tmp_path).load(weights(policy, prompts), 1)
    assert caught.value.exit_status == 7 and "\n" not in str(caught.value)
    assert fake.paused == (fault in ("cache kept", "no dev mode"))  # nobody draws from half of an update


@pytest.mark.parametrize(
    ("size", "message"), [(1.0, "^wrong weights: "), (0.02, "^stale weights: .* to the last digit")]
)
def test_stale_weights_are_noticed_however_small_the_step(
    fake: Any, policy: Any, prompts: Any, tmp_path: Path, size: float, message: str
) -> None:
    made = engine(fake, tmp_path)
    made.load(weights(policy, prompts), 1)
    fake.faults = {"stale weights"}
    with torch.no_grad():
        policy.lm_head.weight += size * torch.randn(
            policy.lm_head.weight.shape, generator=torch.Generator().manual_seed(1)
        )
    with pytest.raises(EngineError, match=message):
        made.load(weights(policy, prompts), 2)


FAULTS_OF_DRAWING = {
    "no logprobs": "^logprobs missing: engine .* gave no logprobs for [1-5] tokens",
    "another tokenizer": "^another tokenizer: engine .* drew the token 1000000, and the policy has the ids 0 to 127",
    "another prompt": r"^another prompt: engine .* read \[1\] where",
    "half a response": "^half a response: engine .* stopped after 1 of 5 tokens .finish_reason 'abort'",
    "nothing": r"^half a response: engine .* gave no token ids \(\[\]\)",
    "changes meanwhile": "^stale weights: engine .* has version 'of another run' after a batch",
    "dies": "^no answer: engine .*: /v1/completions: RemoteProtocolError",
}


@pytest.mark.sweep
@pytest.mark.parametrize("fault", list(FAULTS_OF_DRAWING))
def test_what_is_no_response_of_these_weights_is_refused(
    fake: Any, policy: Any, prompts: Any, tiny_tokenizer: Any, tiny_sampling: ModuleType, tmp_path: Path, fault: str
) -> None:
    made = engine(fake, tmp_path)
    made.load(weights(policy, prompts), 1)
    fake.faults = {fault}
    with pytest.raises(EngineError, match=FAULTS_OF_DRAWING[fault]):
        made.sample(prompts, decoding(tiny_tokenizer, eos_ids=()), tiny_sampling.generator(1))


def test_prompts_of_one_token_are_probed_all_the_same(tiny_sampling: ModuleType) -> None:
    prompts = tiny_sampling.prompts(1, 2)
    one, two = int(prompts.prompt_ids[0, 0]), prompts.prompt_ids[1, :2].tolist()
    assert known_sequences(prompts) == [two, [one, one]]


def test_a_temporary_directory_holds_the_weights_only_until_the_server_has_read_them(
    fake: Any, policy: Any, prompts: Any
) -> None:
    limits = Limits(timeout=30.0, deadline=30.0, retries=0, max_response_bytes=10**6)
    ServerEngine(Calls(fake.url, limits), None, 0.25).load(weights(policy, prompts), 1)
    (read,) = fake.read
    assert Path(read).name == "weights" and not Path(read).parent.exists()


def test_a_server_that_hangs_is_given_up(fake: Any, policy: Any, prompts: Any, tmp_path: Path) -> None:
    fake.faults = {"hangs"}
    with pytest.raises(EngineError, match="^no answer: engine .*: /pause: no complete answer within the"):
        engine(fake, tmp_path, timeout=0.2, deadline=0.5).load(weights(policy, prompts), 1)


def test_an_address_that_is_none_is_refused() -> None:
    limits = Limits(timeout=1.0, deadline=1.0, retries=0, max_response_bytes=1)
    with pytest.raises(ConfigError, match="^engine.url ftp://host/: expected an http or https address"):
        Calls("ftp://host/", limits)

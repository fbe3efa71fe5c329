"""A reward over HTTP: start a server for a function of ours, and let PPO query it.

The server may also run on another machine, or be one of OpenRLHF's. Needs the extra `serve`.

python examples/remote_scorer.py
"""

import argparse
import subprocess
import sys
from pathlib import Path

from rlhf import PPOSettings, PPOTrainer

FUNCTION = f"{Path(__file__).with_name('function_reward.py')}:enthusiasm"


def main() -> None:
    """Start the server, train, and stop the server."""
    parser = argparse.ArgumentParser(description="PPO with a server as the reward")
    parser.add_argument("--model", default="fetch:smollm2-135m-instruct", help="directory or hub name of the policy")
    parser.add_argument("--steps", type=int, default=10, help="PPO steps")
    options = parser.parse_args()

    serve = [sys.executable, "-m", "rlhf", "serve-reward", "--function", FUNCTION, "--port", "0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603  # our own command
        try:
            address = next(line for line in server.stdout or () if "http://" in line)
            url = next(word for word in address.split() if word.startswith("http://"))
            reward = {"kind": "http", "url": url, "timeout": 10, "retries": 3, "on_error": "drop_episode"}
            settings = PPOSettings(steps=options.steps, rollout_batch_size=16, sampling={"max_new_tokens": 16})
            with PPOTrainer(options.model, reward=reward, config=settings) as trainer:
                for row in trainer.train(["The film was", "My dinner was", "The weather is", "Berlin is"]):
                    print(f"step {row['step']:.0f}: the server says {row['reward/http/mean']:.2f}")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()

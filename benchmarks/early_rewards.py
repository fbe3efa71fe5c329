"""What `early: true` gains where a reward takes its time: PPO rollouts with a slow server, asked early and afterwards.

    python benchmarks/early_rewards.py                     # about 5 minutes on 2 quiet cores
    python benchmarks/early_rewards.py --seconds 0.02      # a faster server

The server sleeps for each text it is sent, as a judge that reads one text after the other would; it needs no core. Both
sides draw the same responses from the same model, in turn, in one process; a response is a sentence, so that lengths
differ. A time is that of drawing and scoring.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from rlhf import PPOTrainer
from rlhf.allocator import keep_memory
from rlhf.config import PPOSettings

PROMPTS = ["The film was", "My dinner was", "From the start the ending", "All in all the hero of it"]


@contextmanager
def slow_server(seconds: float) -> Iterator[str]:
    """Serve scores that take `seconds` a text; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["query"]
            time.sleep(seconds * len(texts))
            body = json.dumps({"rewards": [float(len(text)) for text in texts]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/score"
    finally:
        server.shutdown()


def made(options: argparse.Namespace, url: str, *, early: bool) -> PPOTrainer:
    """Return a trainer whose one reward is the server."""
    settings = PPOSettings(
        steps=1,
        rollout_batch_size=options.rows,
        sampling={"max_new_tokens": options.tokens, "temperature": 0.8, "stop_strings": [".", "!", "?"]},
        model={"trainable_layers": 2},
    )
    reward = {"kind": "http", "url": url, "early": early, "timeout": 300.0, "deadline": 300.0}
    return PPOTrainer(policy=options.model, reward=reward, config=settings)


def timed(trainer: PPOTrainer, rows: int) -> tuple[float, float, list[float]]:
    """Return the seconds of drawing, those of drawing and scoring, and the scores."""
    prompts = [PROMPTS[row % len(PROMPTS)] for row in range(rows)]
    trainer.ppo.generators.rollout.manual_seed(1)
    start = time.perf_counter()
    sampled = trainer.rollout(prompts)
    drawn = time.perf_counter()
    scored = trainer.score(sampled)
    return drawn - start, time.perf_counter() - start, scored.scores


def main() -> None:
    """Let both sides draw and score in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fetch:smollm2-135m-instruct", help="a directory or `fetch:NAME`")
    parser.add_argument("--seconds", type=float, default=0.1, help="that the server takes for a text")
    parser.add_argument("--rows", type=int, default=64, help="responses of a rollout")
    parser.add_argument("--tokens", type=int, default=40, help="longest response")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each side")
    options = parser.parse_args()
    keep_memory()
    with slow_server(options.seconds) as url:
        sides = {early: made(options, url, early=early) for early in (False, True)}
        for trainer in sides.values():
            timed(trainer, options.rows)  # builds what is built once
        rounds = [{early: timed(each, options.rows) for early, each in sides.items()} for _ in range(options.rounds)]
    assert all(each[False][2] == each[True][2] for each in rounds), "both sides draw and score the same"
    drawing = statistics.median(each[False][0] for each in rounds)
    late, early = (statistics.median(each[side][1] for each in rounds) for side in (False, True))
    ratios = [each[False][1] / each[True][1] for each in rounds]
    print("| rows | seconds a text | drawing | asked afterwards | asked early | ratio | of rounds |")
    print("|---|---|---|---|---|---|---|")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    cells = [options.rows, options.seconds, f"{drawing:.1f} s", f"{late:.1f} s", f"{early:.1f} s"]
    print(f"| {' | '.join(map(str, [*cells, f'{late / early:.2f}', spread]))} |")


if __name__ == "__main__":
    main()

"""A vLLM server as small as it can be: it loads weights and draws from them; and it does what servers do wrong."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import AutoModelForCausalLM


class FakeVLLM:
    """Serves the weights of a directory. `faults` holds the names of what it does wrong."""

    def __init__(self, directory: str) -> None:
        self.faults: set[str] = set()
        self.calls: list[str] = []
        self.read: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.drawn_from: list[str] = []
        self.gate = threading.Event()  # draws wait while it is not set
        self.gate.set()
        self.waiting: set[int] = set()  # threads with a draw that has not ended
        self.was_interrupted = False  # whether weights were changed meanwhile
        self.version, self.paused, self.released = "default", False, threading.Event()
        self.model = AutoModelForCausalLM.from_pretrained(directory).eval()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that hung up
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and content; None is an empty answer."""
        answers = {
            "/v1/models": self._models,
            "/weight_info": lambda _: (200, {"weight_version": self.version}),
            "/pause?mode=wait": lambda _: self._pause(True),
            "/resume": lambda _: self._pause(False),
            "/collective_rpc": self._reload,
            "/reset_prefix_cache": lambda _: (200, {"success": "cache kept" not in self.faults}),
            "/update_weight_version": self._set_version,
            "/v1/completions": self._complete,
        }
        with self._lock:
            self.calls.append(path)
            return answers[path](body)

    def _models(self, _: dict[str, Any]) -> tuple[int, Any]:
        return 200, {"data": [{"id": "policy"}, *([{"id": "b"}] if "two models" in self.faults else [])]}

    def _pause(self, paused: bool) -> tuple[int, Any]:
        self.paused = paused
        self.was_interrupted |= paused and bool(self.waiting)
        return 200, {"status": "paused" if paused else "resumed"}

    def _set_version(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.version = "another" if "wrong version" in self.faults else body["new_version"]
        return 200, {"success": True}

    def _complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        assert not self.paused
        self.requests.append(body)
        if "prompt_logprobs" not in body:
            self.drawn_from.append(self.version)
        return 200, {"choices": [self._choice(body)]}

    def _reload(self, body: dict[str, Any]) -> tuple[int, Any]:
        assert body["method"] == "reload_weights" and self.paused
        self.read.append(body["kwargs"]["weights_path"])
        if "no dev mode" in self.faults:
            return 404, {"detail": "Not Found"}
        if "stale weights" not in self.faults:
            self.model = AutoModelForCausalLM.from_pretrained(body["kwargs"]["weights_path"]).eval()
        if "half of the weights" in self.faults:
            torch.nn.init.normal_(self.model.get_input_embeddings().weight)
        return 200, {"results": [None]}

    @torch.no_grad()
    def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        ids, numbers = list(body["prompt"]), torch.Generator().manual_seed(body["seed"])
        if "prompt_logprobs" in body:
            table = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            listed = [None, *({str(t): {"logprob": float(table[k, t])}} for k, t in enumerate(ids[1:]))]
            return {"token_ids": [5], "prompt_logprobs": None if "no logprobs" in self.faults else listed}
        drawn: list[int] = []
        logprobs: list[float] = []
        while len(drawn) < body["max_tokens"] and not set(drawn) & set(body["stop_token_ids"]):
            logits, temperature = self.model(torch.tensor([ids + drawn])).logits[0, -1], body["temperature"]
            table = (logits / (temperature or 1.0)).log_softmax(-1)
            if body["top_k"]:
                table = table.masked_fill(table < table.topk(body["top_k"]).values[-1], -torch.inf).log_softmax(-1)
            drawn.append(int(table.exp().multinomial(1, generator=numbers) if temperature else table.argmax()))
            logprobs.append(float(table[drawn[-1]]))
        choice = {"token_ids": drawn, "prompt_token_ids": ids, "finish_reason": "length"}
        choice["logprobs"] = {"token_logprobs": logprobs}
        return self._spoilt(choice)

    def _spoilt(self, choice: dict[str, Any]) -> dict[str, Any]:
        if "no logprobs" in self.faults:
            choice["logprobs"] = None
        if "another tokenizer" in self.faults:
            choice["token_ids"][0] = 10**6
        if "another prompt" in self.faults:
            choice["prompt_token_ids"] = [1]
        if "half a response" in self.faults:
            choice["token_ids"], choice["finish_reason"] = choice["token_ids"][:1], "abort"
            choice["logprobs"] = {"token_logprobs": [-1.0]}
        if "nothing" in self.faults:
            choice["token_ids"] = []
        if "changes meanwhile" in self.faults:
            self.version = "of another run"
        return choice

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

            def _answer(self, body: dict[str, Any]) -> None:
                if "hangs" in fake.faults:
                    fake.released.wait(60)
                draws = "prompt" in body and "prompt_logprobs" not in body
                if draws:
                    fake.waiting.add(threading.get_ident())
                    if not fake.gate.wait(20):
                        return self.send_error(500, "the gate stayed shut")
                status, content = fake.answer(self.path, body)
                fake.waiting.discard(threading.get_ident())
                text = b"" if content is None else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                died = "dies" in fake.faults and self.path == "/v1/completions"
                self.wfile.write(text[: len(text) // 2] if died else text)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

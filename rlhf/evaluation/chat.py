"""Verb: talk to a model in the terminal, one line per turn."""

import sys
from collections.abc import Callable, Iterable

from rlhf.config import GenerateConfig
from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError
from rlhf.evaluation.respond import Answering, Policy, load_policy_here, respond
from rlhf.printable import printable
from rlhf.training.randomness import generator

NO_LIMIT = 10**9
"""Tokens of a conversation: no limit but the model's positions."""
COMMANDS = "an empty line starts a new conversation, Ctrl-D ends"


def chat(config: GenerateConfig) -> None:
    """Answer each line of standard input, with the conversation so far as its prompt.

    A model without a chat template continues each line by itself, without the earlier ones.

    Raises:
        RlhfError: bad config or model, or the conversation exceeds the model's positions.
    """
    if config.prompts is not None or config.output is not None or config.samples_per_prompt != 1:
        raise ConfigError("chat: prompts, output and samples_per_prompt have no effect here - use rlhf generate")
    policy = load_policy_here(config.model, config.precision, config.chat)
    print(f"{config.model}: {COMMANDS}", file=sys.stderr, flush=True)
    converse(policy, config, sys.stdin, lambda text: print(printable(text), flush=True))


def converse(policy: Policy, config: GenerateConfig, lines: Iterable[str], show: Callable[[str], None]) -> None:
    """Answer the lines one after the other.

    Args:
        policy: the model that answers.
        config: how responses are sampled.
        lines: of the user; an empty one starts a new conversation.
        show: gets each response.
    """
    numbers, answering = generator(config.seed, "chat"), Answering(config.engine)
    has_template = policy.tokenizer.chat_template is not None
    messages: list[dict[str, object]] = []
    for line in lines:
        said = line.strip()
        messages = [*messages, {"role": "user", "content": said}] if said else []
        if not said:
            continue
        row = Row({"prompt": messages if has_template else said}, "this line")
        prompts = prepare_prompts([row], policy.tokenizer, max_length=NO_LIMIT, over_long="error").items
        (answer,) = respond(policy, prompts, config.decoding, numbers, answering)
        messages.append({"role": "assistant", "content": answer.text})
        show(answer.text)

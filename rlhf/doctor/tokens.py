"""Checks of tokenizers and the chat template."""

from rlhf.data.encoder import Encoder
from rlhf.data.records import Message, Row
from rlhf.data.sequences import token_sequence
from rlhf.doctor.finding import Finding, graded
from rlhf.errors import DataError
from rlhf.models.pretrained.tokenizer import tokenizer_fingerprint
from rlhf.ppo.run.assembly import PPORun
from rlhf.rewards.kinds.model import ModelReward
from rlhf.rewards.protocol import Episode

NUM_CONVERSATIONS = 8
"""Conversations on which the chat template is tried."""


def pad_is_not_eos(parts: PPORun) -> Finding:
    """The pad token is none of the tokens that end a response."""
    tokenizer, ends = parts.trainer.collector.tokenizer, parts.trainer.collector.eos_ids
    pad = tokenizer.pad_token_id
    return graded(
        "pad token",
        f"{tokenizer.pad_token!r} (id {pad}), responses end with {tokenizer.convert_ids_to_tokens(list(ends))}",
        failing="the pad token is EOS: training that masks padding by its id never learns to end - set pad_token in "
        "tokenizer_config.json to a token that does not occur in text"
        if pad is None or pad == tokenizer.eos_token_id
        else "",
        warning="the pad token is among the ids that end a response; rlhf masks by length, but other programs may "
        "mistake the end for padding - remove it from eos_token_id in generation_config.json"
        if pad in ends
        else "",
    )


def template_is_prefix(parts: PPORun, episodes: list[Episode]) -> Finding:
    """The whole conversation begins with what the policy read."""
    spoken = [each for each in episodes if isinstance(each.prompt, list)][:NUM_CONVERSATIONS]
    if not spoken:
        return Finding("chat template", "ok", "prompts are text, no template is applied")
    encoder = Encoder(parts.trainer.collector.tokenizer, append_eos=False)
    num_good = sum(_is_prefix(encoder, each) for each in spoken)
    return graded(
        "chat template",
        f"the conversation begins with the prompt in {num_good} of {len(spoken)}",
        failing="finetuning and rewards read another conversation than the policy does - fix "
        "chat_template.jinja: with add_generation_prompt it must end where the assistant's content begins"
        if num_good < len(spoken)
        else "",
    )


def tokenizers_agree(parts: PPORun) -> Finding:
    """A reward model with the policy's tokenizer reads the policy's token ids; any other reads text."""
    tokenizer = parts.trainer.collector.tokenizer
    said, near = [], []
    for place, item in enumerate(parts.trainer.collector.scorer.rewards):
        if not isinstance(item[0], ModelReward):
            continue
        own = item[0].tokenizer
        shares = tokenizer_fingerprint(own) == tokenizer_fingerprint(tokenizer)
        said.append(f"rewards[{place}] reads {'ids' if shares else 'text'}")
        if not shares and own.get_vocab() == tokenizer.get_vocab():
            near.append(f"rewards[{place}]")
    critic = [] if parts.critic is None else ["the critic reads ids"]
    return graded(
        "tokenizers",
        ", ".join(["the reference reads ids", *critic, *said]),
        warning=f"{', '.join(near)}: the policy's vocabulary but other special tokens, so it reads text, and its score "
        "is read at another end token - save both with the same special_tokens"
        if near
        else "",
    )


def _is_prefix(encoder: Encoder, episode: Episode) -> bool:
    said: list[Message] = [{"role": "assistant", "content": episode.completion}]
    prompt = list(episode.prompt) if isinstance(episode.prompt, list) else []
    try:
        token_sequence([prompt, said], encoder, Row(dict(episode.columns), "doctor"))
    except DataError:
        return False
    return True

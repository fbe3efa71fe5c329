"""Writes the files of this folder again, byte for byte: `python data/make_reviews.py`."""

import argparse
import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

SEED = 20240501
MAX_VOCABULARY = 512
MAX_POSITIONS = 128
SUBJECTS = ("film", "story", "cast", "music", "ending", "script", "camera work", "first act", "hero", "villain")
OPENERS = ("To me", "In short", "This time", "All in all", "From the start", "In the end", "For once", "At heart")
VERDICTS = {
    1: ("warm", "clever", "moving", "bright", "rich", "bold", "tender", "sharp", "lovely", "superb"),
    0: ("flat", "dull", "clumsy", "cold", "thin", "noisy", "lazy", "stale", "dreary", "awful"),
}
CLOSERS = {
    1: ("I left with a smile.", "I will watch it again.", "It earns every minute.", "See it with a friend."),
    0: ("I left before the end.", "I want my evening back.", "It wastes every minute.", "Skip it if you can."),
}
QUESTIONS = ("What did you think of the {}?", "How was the {}?", "Tell me about the {}.", "Was the {} any good?")
SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '[' + message['role'] + '] ' }}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{% else %}{{ message['content'] }}"
    "{% endif %}{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)

Row = dict[str, object]
Beginning = tuple[str, str]


def review(opener: str, subject: str, label: int, generator: random.Random) -> Row:
    """Return one review of the grammar: OPENER the SUBJECT was VERDICT and VERDICT. CLOSER."""
    first, second = generator.sample(VERDICTS[label], 2)
    closer = generator.choice(CLOSERS[label])
    return {"prompt": f"{opener} the {subject}", "completion": f" was {first} and {second}. {closer}", "label": label}


def make_files() -> dict[str, list[Row]]:
    """Return the rows of every file; no beginning is in two of training, evaluation, held-out and selection."""
    generator = random.Random(SEED)  # noqa: S311 - text, not secrets
    beginnings = [(opener, subject) for opener in OPENERS for subject in SUBJECTS]
    generator.shuffle(beginnings)
    heldout, selection, evaluation, training = beginnings[:16], beginnings[16:24], beginnings[24:30], beginnings[30:]
    demonstrations = _demonstrations(training, generator)
    return {
        "sft_train.jsonl": demonstrations,
        "sft_eval.jsonl": _demonstrations(evaluation, generator),
        "preference_train.jsonl": _pairs(training, generator),
        "preference_eval.jsonl": _pairs(evaluation, generator),
        "labelled_texts.jsonl": [
            {"text": f"{row['prompt']}{row['completion']}", "label": row["label"]} for row in demonstrations
        ],
        "ppo_prompts.jsonl": [{"prompt": f"{opener} the {subject}"} for opener, subject in training],
        "heldout_prompts.jsonl": [_human(start, number % 2, generator) for number, start in enumerate(heldout)],
        "selection_prompts.jsonl": [_human(start, number % 2, generator) for number, start in enumerate(selection)],
        "conversations.jsonl": [_conversation(row, generator) for row in demonstrations[:40]],
    }


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on the grammar: no text is unknown to it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_POSITIONS,
        padding_side="right",
        **SPECIAL_TOKENS,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    """Return the configuration of a model of some 40,000 weights that reads the tokenizer's ids."""
    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=(len(tokenizer) + 7) // 8 * 8,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )


def _demonstrations(starts: list[Beginning], generator: random.Random) -> list[Row]:
    rows = [review(*start, label, generator) for start in starts for label in (0, 1) for _ in range(2)]
    generator.shuffle(rows)
    return rows


def _pairs(starts: list[Beginning], generator: random.Random) -> list[Row]:
    """Apply the rule of the preferences: of two reviews with one beginning, the favourable one is chosen."""
    rows: list[Row] = []
    for start in starts:
        for _ in range(3):
            chosen, rejected = (review(*start, label, generator) for label in (1, 0))
            rows.append(
                {"prompt": chosen["prompt"], "chosen": chosen["completion"], "rejected": rejected["completion"]}
            )
    generator.shuffle(rows)
    return rows


def _human(start: Beginning, label: int, generator: random.Random) -> Row:
    row = review(*start, label, generator)
    return {"prompt": row["prompt"], "human": f"{row['prompt']}{row['completion']}", "label": label}


def _conversation(row: Row, generator: random.Random) -> Row:
    subject = str(row["prompt"]).rpartition(" the ")[2]
    question = generator.choice(QUESTIONS).format(subject)
    answer = f"{row['prompt']}{row['completion']}"
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def main() -> None:
    """Write rows, tokenizer and model configuration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="folder to write to")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    files = make_files()
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    texts = [str(row["text"]) for row in files["labelled_texts.jsonl"]]
    texts += [question.format(subject) for question in QUESTIONS for subject in SUBJECTS]
    tokenizer = make_tokenizer(texts)
    config = make_config(tokenizer)
    tokenizer.save_pretrained(folder / "tiny_model")
    config.save_pretrained(folder / "tiny_model")
    for name, rows in files.items():
        print(f"{name}: {len(rows)} rows")
    print(f"tiny_model: {len(tokenizer)} tokens, vocabulary of the model {config.vocab_size}")


if __name__ == "__main__":
    main()

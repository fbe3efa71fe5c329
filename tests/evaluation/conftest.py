"""Tiny random policies on disk, as the stages save them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)


@pytest.fixture(scope="session")
def policy_directory(
    root: Path, tiny_model: Callable[..., PreTrainedModel], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A factory: the directory of a random policy of 128 positions with the tokenizer of data/tiny_model."""
    built: dict[int, Path] = {}

    def build(seed: int = 0) -> Path:
        if seed not in built:
            directory = tmp_path_factory.mktemp(f"policy-{seed}")
            tokenizer = AutoTokenizer.from_pretrained(root / "data/tiny_model")
            model = tiny_model("llama", seed=seed, vocab_size=len(tokenizer), max_position_embeddings=128)
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
            built[seed] = directory
        return built[seed]

    return build


@pytest.fixture(scope="session")
def reward_model_directory(policy_directory: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a random reward model on the trunk of policy 0."""
    directory = tmp_path_factory.mktemp("reward_model")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = AutoModelForSequenceClassification.from_pretrained(policy_directory(0), num_labels=1)
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(policy_directory(0)).save_pretrained(directory)
    return directory


SENTENCE = "the film cast music plot number was and warm rich clever bold stale flat dull thin"
ENCODER_WORDS = [*SENTENCE.split(), *"0123456789"]


@pytest.fixture(scope="session")
def encoder_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a random sentence encoder (BERT) of 16 positions that knows `ENCODER_WORDS`."""
    directory = tmp_path_factory.mktemp("encoder")
    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *ENCODER_WORDS])}
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(directory)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=16, **sizes)).save_pretrained(
            directory
        )
    return directory

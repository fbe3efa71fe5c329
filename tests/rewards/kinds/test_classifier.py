"""Classifiers of others: encoders and decoders with one or several labels, and tokenizers of their own."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, BertConfig, PreTrainedTokenizerFast

from rlhf.errors import ConfigError, RewardError
from rlhf.models.pretrained.loading import load_scalar_lm
from rlhf.rewards.kinds.classifier import ClassifierReward, labels_of, reads_tokens
from rlhf.rewards.protocol import Episode

CPU = torch.device("cpu")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "is", "good", "bad", "very"]


def bert_tokenizer(**options):
    """Whole words, [CLS] and [SEP] around them; no BOS, no EOS, no chat template."""
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special, **options)


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory):
    """A tiny sentiment classifier as others publish them: an encoder, two named labels."""
    path = tmp_path_factory.mktemp("sentiment")
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=12, initializer_range=0.5, id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    bert_tokenizer().save_pretrained(path)
    return str(path)


def episode(prompt, completion):
    return Episode(prompt=prompt, completion=completion, columns={}, prompt_ids=(900, 901), response_ids=(902, 2))


EPISODES = [episode("the film", " is good"), episode("the film is", " very very bad"), episode("film", "")]
IDS = [[2, 4, 5, 6, 7, 3], [2, 4, 5, 6, 9, 9, 8, 3], [2, 5, 3]]


def logits(path, ids):
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0]


def reward(path, label="POSITIVE", activation="none", **options):
    return ClassifierReward(path, label=label, activation=activation, device=CPU, **options)


# Float32 through two small layers in another order of rows: some hundred roundings of 2^-24.
CLOSE = {"rel": 1e-4, "abs": 1e-5}


@pytest.mark.sweep
@pytest.mark.parametrize("label", ["POSITIVE", 1])
@pytest.mark.parametrize("max_tokens", [1, 12, 4096])
def test_a_label_is_taken_by_name_or_index_whatever_stands_beside_it(sentiment, label, max_tokens):
    expected = [float(logits(sentiment, ids)[1]) for ids in IDS]
    found = reward(sentiment, label, max_tokens=max_tokens)
    assert found.score(EPISODES) == pytest.approx(expected, **CLOSE)
    assert found.score([]) == []
    found.close()


@pytest.mark.parametrize(
    ("activation", "by_hand"),
    [
        ("softmax", lambda z: z[0].exp() / (z[0].exp() + z[1].exp())),
        ("log_softmax", lambda z: (z[0].exp() / (z[0].exp() + z[1].exp())).log()),
        ("sigmoid", lambda z: 1 / (1 + (-z[0]).exp())),
        ("log_sigmoid", lambda z: -(1 + (-z[0]).exp()).log()),
    ],
)
def test_activations_are_those_of_the_book(sentiment, activation, by_hand):
    expected = [float(by_hand(logits(sentiment, ids))) for ids in IDS]
    assert reward(sentiment, "NEGATIVE", activation).score(EPISODES) == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize(
    ("label", "said"), [(None, "no label"), ("positive", "label 'positive'"), (2, "label 2"), (-1, "label -1")]
)
def test_a_label_that_is_not_there_is_answered_by_those_that_are(sentiment, label, said):
    with pytest.raises(ConfigError, match=rf"{said}; the model has \['NEGATIVE', 'POSITIVE'\] - name one"):
        reward(sentiment, label)


def test_a_conversation_without_a_chat_template_is_its_texts(sentiment):
    messages = [{"role": "user", "content": "the film"}]
    expected = [float(logits(sentiment, IDS[0])[1])]
    assert reward(sentiment).score([episode(messages, "is good")]) == pytest.approx(expected, **CLOSE)


def test_a_conversation_passes_through_the_classifiers_own_template_without_more_special_tokens(sentiment, tmp_path):
    template = "{% for m in messages %}[CLS] {{ m['content'] }} [SEP] {% endfor %}"
    AutoModelForSequenceClassification.from_pretrained(sentiment).save_pretrained(tmp_path)
    bert_tokenizer(chat_template=template).save_pretrained(tmp_path)
    messages = [{"role": "user", "content": "the film"}]
    expected = [float(logits(sentiment, [2, 4, 5, 3, 2, 6, 7, 3])[1])]
    assert reward(str(tmp_path)).score([episode(messages, "is good")]) == pytest.approx(expected, **CLOSE)


def test_a_text_beyond_the_models_positions_is_refused(sentiment):
    long = episode("the film", " very" * 9)
    with pytest.raises(RewardError, match="prompt and response have 13 tokens, the model reads 12"):
        reward(sentiment).score([long])


def test_a_score_that_is_not_finite_is_refused(sentiment):
    broken = reward(sentiment)
    torch.nn.init.constant_(broken._model.classifier.weight, torch.nan)
    with pytest.raises(RewardError, match="score 0 is nan for the prompt 'the film'"):
        broken.score(EPISODES)


@pytest.fixture
def decoder(tiny_model, tiny_tokenizer, tmp_path):
    """A decoder with one label, whose files name no pad token."""
    tiny_model("llama", pad_token_id=None).save_pretrained(tmp_path / "lm")
    model = load_scalar_lm(str(tmp_path / "lm"), new_head=True)
    model.config.pad_token_id = None
    model.save_pretrained(tmp_path / "rm")
    tiny_tokenizer.pad_token = None
    tiny_tokenizer.save_pretrained(tmp_path / "rm")
    return str(tmp_path / "rm")


def test_a_decoder_without_a_pad_token_scores_row_by_row(decoder, tiny_tokenizer):
    given = [episode("ab", "c"), episode("abc", "defg")]
    expected = [float(logits(decoder, tiny_tokenizer(text).input_ids)[0]) for text in ("abc", "abcdefg")]
    assert reward(decoder, None).score(given) == pytest.approx(expected, **CLOSE)


def test_scalar_decoders_read_tokens_and_everything_else_reads_text(sentiment, decoder):
    assert labels_of(sentiment) == ["NEGATIVE", "POSITIVE"] and labels_of(decoder) == ["LABEL_0"]
    assert reads_tokens(decoder) and not reads_tokens(sentiment)


def test_an_encoder_with_one_label_reads_text(tmp_path):
    BertConfig(num_labels=1, hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(tmp_path)
    assert not reads_tokens(str(tmp_path))


def test_what_is_no_classifier_is_refused(sentiment, tmp_path):
    with pytest.raises(ConfigError, match="no config could be loaded"):
        reward(str(tmp_path))
    BertConfig.from_pretrained(sentiment).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="no sequence classifier could be loaded"):
        reward(str(tmp_path))

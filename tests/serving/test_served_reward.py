import pytest
import torch
from pydantic import ValidationError

from rlhf.data.encoder import Encoder
from rlhf.errors import ConfigError
from rlhf.rewards.kinds.model import ModelReward
from rlhf.rewards.protocol import Episode
from rlhf.serving.served_reward import Refused, ScoreRequest, function_source, model_source


def _request(*queries, **fields):
    return ScoreRequest(query=list(queries), **fields)


def _ids(source, *queries, **fields):
    return [(episode.prompt_ids, episode.response_ids) for episode in source.episodes(_request(*queries, **fields))]


@pytest.fixture
def write(tmp_path):
    def write_file(code):
        (tmp_path / "served.py").write_text(code)
        return f"{tmp_path / 'served.py'}:score"

    return write_file


def test_a_model_reads_prompt_and_response_apart_with_their_special_tokens(directory, tiny_tokenizer):
    source = model_source(directory, "float32", "cpu")
    encode = Encoder(tiny_tokenizer, append_eos=False).bare
    pairs = _ids(source, "<bos>Hi. So<eos>", "Hi. So", prompts=["<bos>Hi.", "Hi."])
    assert pairs == [
        (tuple(encode("<bos>Hi.")), tuple(encode(" So<eos>"))),
        (tuple(encode("Hi.")), tuple(encode(" So"))),
    ]
    assert pairs[0][0][0] == tiny_tokenizer.bos_token_id
    assert pairs[0][1][-1] == tiny_tokenizer.eos_token_id


def test_a_model_can_do_without_prompts_that_begin_their_queries(directory, tiny_tokenizer):
    source = model_source(directory, "float32", "cpu")
    whole = [tuple(tiny_tokenizer("Hi. So<eos>")["input_ids"])]
    for prompts in (None, ["other"], [""]):
        assert [prompt + response for prompt, response in _ids(source, "Hi. So<eos>", prompts=prompts)] == whole


def test_the_scores_are_those_of_the_model(directory, tiny_tokenizer):
    source = model_source(directory, "float32", "cpu")
    ids = tuple(tiny_tokenizer("Hi. So<eos>")["input_ids"])
    local = ModelReward(directory, tiny_tokenizer, dtype=torch.float32, device=torch.device("cpu"))
    episode = Episode(prompt="", completion="", columns={}, prompt_ids=ids[:3], response_ids=ids[3:])
    request = _request("Hi. So<eos>", "Hi. So", prompts=["Hi.", "Hi."])
    scores = source.reward.score(source.episodes(request))
    # float32 in batches of another shape: some hundred roundings of 2^-24
    assert scores[:1] == pytest.approx(local.score([episode]), rel=1e-4, abs=1e-5)
    assert abs(scores[0] - scores[1]) > 1e-3  # the EOS counts


def test_a_text_longer_than_the_model_is_too_large(directory):
    source = model_source(directory, "float32", "cpu")
    assert len(_ids(source, "a" * 256)) == 1
    with pytest.raises(Refused, match="^query.1: has 257 tokens, the model 256 positions$") as caught:
        source.episodes(_request("a", "a" * 257))
    assert caught.value.status == 413
    with pytest.raises(Refused, match=r"^query.0: is empty$") as caught:
        source.episodes(_request(""))
    assert caught.value.status == 422


def test_a_device_that_is_not_there_is_refused(directory):
    with pytest.raises(ConfigError, match="--device nonsense: "):
        model_source(directory, "float32", "nonsense")


def test_a_function_gets_prompts_completions_and_labels(write):
    spec = write(
        "def score(prompts, completions, labels): return [(p, c, l) for p, c, l in zip(prompts, completions, labels)]"
    )
    source = function_source(spec)
    request = _request("Hi. So", "<bos>Why? It is", "alone", prompts=["Hi.", "Why?", ""], labels=[4, None, {"a": 1}])
    parts = [(e.prompt, e.completion, e.columns["labels"]) for e in source.episodes(request)]
    assert parts == [("Hi.", " So", 4), ("<bos>Why?", " It is", None), ("", "alone", {"a": 1})]
    assert [e.completion for e in source.episodes(_request("alone"))] == ["alone"]
    assert source.episodes(_request("alone"))[0].columns == {}
    assert source.joined_texts == 0


def test_a_function_cannot_score_a_query_without_its_prompt(write):
    source = function_source(write("def score(**columns): return []"))
    with pytest.raises(Refused, match=r"^query.1: does not contain its prompt") as caught:
        source.episodes(_request("ab", "cd", prompts=["a", "x"]))
    assert caught.value.status == 422


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": None},
        {"query": "text"},
        {"query": [1]},
        {"query": ["a", None]},
        {"query": ["a"], "prompts": []},
        {"query": ["a"], "prompts": ["a", "b"]},
        {"query": ["a"], "labels": []},
        {"query": ["a"], "labels": "b"},
        {"query": ["\ud800"]},
    ],
)
def test_a_body_of_another_form_is_invalid(body):
    with pytest.raises(ValidationError):
        ScoreRequest.model_validate(body)


def test_what_forks_add_to_the_body_is_ignored():
    request = ScoreRequest.model_validate({"query": ["a"], "prompts": None, "labels": None, "datasources": ["x"]})
    assert request == _request("a")

from rlhf.config.ppo import SamplingSection
from rlhf.forecast.responses import response_lengths
from rlhf.models.pretrained.tokenizer import load_tokenizer


def sampling(most, temperature=1.0):
    return SamplingSection(max_new_tokens=most, temperature=temperature)


def test_responses_are_as_long_as_the_demonstrations_that_the_policy_has_seen(recipe, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "ab", "completion": "cdef"}\n{"prompt": "ab", "completion": "cdefghijkl"}\n')
    run = recipe(f"sft.data.path={path}")
    short = len(load_tokenizer("data/tiny_model")("cdef")["input_ids"]) + 1  # an EOS
    # The longer one is cut, and both repeat.
    lengths = response_lengths(run.ppo.model.path, [7, 7, 7], sampling(short + 1), run, "ppo")
    assert lengths == [short, short + 1, short]


def test_responses_are_shorter_below_temperature_1(recipe, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "ab", "completion": "cdefghijklmnopqrstuvwxyz"}\n')
    run = recipe(f"sft.data.path={path}")
    length = len(load_tokenizer("data/tiny_model")("cdefghijklmnopqrstuvwxyz")["input_ids"]) + 1
    assert response_lengths(run.ppo.model.path, [7], sampling(60), run, "ppo") == [length]
    assert response_lengths(run.ppo.model.path, [7], sampling(60, 0.8), run, "ppo") == [round(0.8 * length)]


def test_a_text_begins_with_what_will_be_the_prompt(recipe, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "abcdefgh"}\n')
    run = recipe(f"sft.data.path={path}")
    whole = response_lengths(run.ppo.model.path, [0], sampling(40), run, "ppo")[0]
    assert response_lengths(run.ppo.model.path, [3, 5], sampling(40), run, "ppo") == [whole - 4, whole - 4]


def test_another_policy_is_taken_to_write_half_of_what_it_may(recipe):
    run = recipe("ppo.model.path=data/tiny_model")
    assert response_lengths(run.ppo.model.path, [7, 7], sampling(9), run, "ppo") == [4, 4]
    assert response_lengths(f"{run.output_dir}/ppo/policy", [7], sampling(1), run, "evaluate") == [1]

"""A chat template of one's own and values for its variables: in every stage, in Python, and in what is saved."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rlhf import EvaluateSettings, PPOSettings, PPOTrainer, evaluate, generate
from rlhf.cli import main
from rlhf.config import PPOConfig
from rlhf.errors import ConfigError
from rlhf.models.pretrained.chat_template import use_chat_template

TALK = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "ab"}]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'][0] + ':' }}{% if m['role'] == 'assistant' %}{{ mood or '' }}{% endif %}"
    "{{ m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'a:' + (mood or '') }}{% endif %}"
)
Made = Callable[..., Any]


@pytest.fixture
def template(tmp_path: Path) -> str:
    """The path of a template that reads `mood`."""
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    return str(tmp_path / "own.jinja")


def read(tokenizer: PreTrainedTokenizerBase, **variables: Any) -> str:
    """What a model reads before it answers."""
    return str(tokenizer.apply_chat_template(TALK[:1], tokenize=False, add_generation_prompt=True, **variables))


def test_thinking_is_switched_off_and_what_the_prompt_supplies_is_not_learnt(
    public: ModuleType, examples: Made, sampled: Made, learnt: Made
) -> None:
    tokenizer = public.byte_level(public.QWEN_3, "<|im_end|>")
    use_chat_template(tokenizer, chat_template_kwargs={"enable_thinking": False})
    (example,) = examples(tokenizer, messages=TALK).items
    prompt = sampled(tokenizer, prompt=TALK[:1])
    assert tokenizer.decode(prompt).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert example.input_ids[: len(prompt)] == prompt
    assert learnt(tokenizer, example) == "ab<|im_end|>"


def test_a_value_is_a_default_that_is_saved_and_may_still_be_passed(
    tiny_tokenizer: PreTrainedTokenizerBase, template: str, tmp_path: Path
) -> None:
    use_chat_template(tiny_tokenizer, template, {"mood": "glad "})
    tiny_tokenizer.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved", trust_remote_code=False)
    assert read(saved) == "u:q<eos>a:glad "
    assert read(saved, mood="sad ") == "u:q<eos>a:sad "
    use_chat_template(saved, chat_template_kwargs={"mood": "calm "})  # the later one counts
    assert read(saved) == "u:q<eos>a:calm "


@pytest.mark.parametrize(
    "value", [True, None, 3, 0.5, 'it\'s "so" %} {{ x }}\n\\', [1, "a"], {"a": [True, None]}], ids=repr
)
def test_each_kind_of_value_arrives(tiny_tokenizer: PreTrainedTokenizerBase, value: Any) -> None:
    tiny_tokenizer.chat_template = "\n  {{ mood | tojson }}"
    use_chat_template(tiny_tokenizer, chat_template_kwargs={"mood": value})
    assert read(tiny_tokenizer) == "\n  " + json.dumps(value)


def test_a_tokenizer_with_several_templates_has_the_value_in_each(tiny_tokenizer: PreTrainedTokenizerBase) -> None:
    tiny_tokenizer.chat_template = {"default": TEMPLATE, "tool_use": TEMPLATE + "!"}
    use_chat_template(tiny_tokenizer, chat_template_kwargs={"mood": "glad"})
    assert read(tiny_tokenizer) == "u:q<eos>a:glad"


@pytest.mark.parametrize(
    ("file", "variables", "message"),
    [
        (None, {"moood": 1}, "the chat template does not read 'moood' - did you mean mood?"),
        (None, {"xyz": 1}, "does not read 'xyz' - leave it out, or give a template that reads it"),
        (None, {"messages": []}, "messages is set by each conversation or the tokenizer - leave it out"),
        (None, {"eos_token": ""}, "eos_token is set by each conversation or the tokenizer"),
        (None, {"mood": {1, 2}}, "found set - write it as text"),
        ("none.jinja", {}, "chat_template: none.jinja cannot be read: No such file or directory - give the path"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    tiny_tokenizer: PreTrainedTokenizerBase, file: str | None, variables: dict[str, Any], message: str
) -> None:
    tiny_tokenizer.chat_template = TEMPLATE
    with pytest.raises(ConfigError) as refused:
        use_chat_template(tiny_tokenizer, file, variables)
    assert message in str(refused.value)


def test_without_a_template_the_hint_works(tiny_tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    tiny_tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template - give one with chat_template: FILE.jinja"):
        use_chat_template(tiny_tokenizer, None, {"mood": "glad"})
    assert read(use_chat_template(tiny_tokenizer, template, {"mood": "glad"})) == "u:q<eos>a:glad"


@pytest.mark.slow
def test_every_stage_takes_both_and_saves_them(in_the_repository: None, template: str, tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "talks.jsonl"
    answers = {"chosen": TALK[1:], "rejected": [{"role": "assistant", "content": "c"}]}
    data.write_text(json.dumps({"prompt": TALK[:1], "completion": TALK[1:]}) + "\n")
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": TALK[:1], **answers}) + "\n")
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"prompt": TALK[:1]}) + "\n")
    chat = [f"model.chat_template={template}", "model.chat_template_kwargs={mood: 'glad '}"]
    supervised = [*chat, "steps=1", "epochs=null", "batch_size=1", "eval_data=null"]

    def do(verb: str, *overrides: str) -> None:
        name = verb.replace("-", "_")
        assert main([verb, "--config", f"configs/smoke/{name}.yaml", f"output_dir={run / name}", *overrides]) == 0

    do("sft", f"data.path={data}", *supervised)
    do("reward-model", f"data.path={tmp_path / 'pairs.jsonl'}", *supervised, "demonstrations=null")
    policy = run / "sft" / "policy"
    for saved in (policy, run / "reward_model" / "reward_model"):
        assert read(AutoTokenizer.from_pretrained(saved, trust_remote_code=False)) == "u:q<eos>a:glad "
    small = ["steps=1", "rollout_batch_size=4", "epochs=1", "sampling.max_new_tokens=3", "checkpoints.every=null"]
    small += [f"model.path={policy}", f"prompts.path={asked}", "rewards=[{kind: length, at_most: 2}]"]
    do("ppo", *small, "model.chat_template_kwargs={mood: 'calm '}")
    saved = AutoTokenizer.from_pretrained(run / "ppo" / "policy", trust_remote_code=False)
    assert read(saved) == "u:q<eos>a:calm "
    shutil.rmtree(run / "ppo")
    do("ppo", *small)  # what SFT was told is remembered
    saved = AutoTokenizer.from_pretrained(run / "ppo" / "policy", trust_remote_code=False)
    assert read(saved) == "u:q<eos>a:glad "
    do(
        "evaluate", f"policies={{a: {policy}}}", f"prompts.path={asked}", "reward_model=null", "gold=null",
        "decoding.max_new_tokens=2", f"chat_template={template}", "chat_template_kwargs={mood: 'sad '}",
    )  # fmt: skip
    assert (run / "evaluate" / "a.jsonl").is_file()


def test_generate_reads_the_template_that_it_is_given(
    in_the_repository: None, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text(json.dumps({"prompt": TALK[:1]}) + "\n")
    seen: list[str] = []

    def noted(policy: Any, prompts: Any, *others: Any) -> list[Any]:
        seen.extend(prompt.text for prompt in prompts)
        return []

    monkeypatch.setattr("rlhf.evaluation.generate.respond", noted)
    monkeypatch.setattr("rlhf.evaluation.generate.response_rows", lambda *given: [])
    (tmp_path / "generate.yaml").write_text(
        f"model: data/tiny_model\nprompts: {{path: {asked}}}\nchat_template: {template}\n"
        "chat_template_kwargs: {mood: 'sad '}\n"
    )
    monkeypatch.setattr("rlhf.evaluation.generate.load_policy_here", loaded_tokenizer_alone)
    assert main(["generate", "--config", str(tmp_path / "generate.yaml")]) == 0
    assert [text[-6:] for text in seen] == ["a:sad "]


def loaded_tokenizer_alone(path: str, precision: Any, chat: Any) -> Any:
    from types import SimpleNamespace

    from rlhf.models.pretrained.tokenizer import load_tokenizer

    return SimpleNamespace(tokenizer=load_tokenizer(path, **chat))


def test_python_takes_both_and_leaves_the_given_tokenizer_alone(workshop: Path, template: str, tmp_path: Path) -> None:
    given = AutoTokenizer.from_pretrained(workshop / "policy", trust_remote_code=False)
    before = given.chat_template
    settings = PPOSettings(
        steps=1, rollout_batch_size=2, minibatches=1, epochs=1, sampling={"max_new_tokens": 2},
        model={"chat_template": template, "chat_template_kwargs": {"mood": "glad "}, "precision": "float32"},
    )  # fmt: skip
    with PPOTrainer(
        str(workshop / "policy"), None, lambda completions: [0.0] * len(completions), given, settings
    ) as made:
        rollout = made.rollout([TALK[:1], TALK[:1]])
        assert given.chat_template == before
        assert made.parts.tokenizer.decode(rollout.episodes[0].prompt_ids).endswith("a:glad ")
        made.save(tmp_path / "saved")
    assert read(AutoTokenizer.from_pretrained(tmp_path / "saved", trust_remote_code=False)).endswith("a:glad ")


def test_a_critic_has_no_template_of_its_own() -> None:
    given = {
        "steps": 1, "output_dir": "x", "model": {"path": "p"}, "prompts": {"path": "f"}, "critic": "separate",
        "rewards": [{"kind": "length", "at_most": 2}], "critic_model": {"path": "r", "chat_template": "own.jinja"},
    }  # fmt: skip
    with pytest.raises(ValueError, match="critic_model: a chat template has no effect, .* - leave it out"):
        PPOConfig.model_validate(given)


def test_generate_and_evaluate_in_python_take_them_too(workshop: Path, template: str, tmp_path: Path) -> None:
    policy, asked = str(workshop / "policy"), [{"prompt": TALK[:1]}]
    wrong = {"chat_template": template, "chat_template_kwargs": {"moood": "glad "}}
    right = {"chat_template": template, "chat_template_kwargs": {"mood": "glad "}, "precision": "float32"}
    with pytest.raises(ConfigError, match="did you mean mood"):
        generate(policy, asked, max_new_tokens=2, **wrong)
    assert len(generate(policy, asked, max_new_tokens=2, **right)) == 1
    with pytest.raises(ConfigError, match="did you mean mood"):
        evaluate({"a": policy}, asked, None, EvaluateSettings(**wrong))
    evaluate({"a": policy}, asked, None, EvaluateSettings(**right, decoding={"max_new_tokens": 2}))

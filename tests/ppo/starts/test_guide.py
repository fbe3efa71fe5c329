"""Tests of rlhf.ppo.starts.guide."""

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlhf.errors import ConfigError
from rlhf.ppo.starts.resets import Resets


def guided(tiny: ModuleType, workshop: Path, path: Path, **changes: Any) -> Resets:
    shown = {"kind": "guide", "path": str(path), "num_demonstrations": 11, **changes}
    section = {"fraction": 0.5, "demonstrations": shown}
    return tiny.parts(tiny.ppo_config(workshop, reset=section, sampling__stop_strings=[])).trainer.resets


def test_a_guide_answers_the_prompts_in_their_order_and_again(tiny: ModuleType, workshop: Path) -> None:
    """Eleven demonstrations of eight prompts, five rows at a time; cold, so that each is the likeliest response."""
    pool = guided(tiny, workshop, workshop / "policy", temperature=1e-4).pool()
    made = tiny.parts(tiny.ppo_config(workshop))
    expected = []
    for place in range(11):
        prompt = made.prompts[place % 8]
        ids = torch.tensor([prompt.ids])
        output = made.trainer.policy.lm.generate(ids, do_sample=False, max_new_tokens=5, eos_token_id=2, pad_token_id=2)
        answer = output[0, ids.shape[1] :].tolist()
        answer = answer[: answer.index(2)] if 2 in answer else answer
        expected += [(prompt.columns["label"], tuple(answer))] if answer else []  # nothing begins inside of an EOS
    assert [(each.prompt.columns["label"], each.response_ids) for each in pool] == expected
    assert [label for label, _ in expected[-2:]] == [0, 2]


def test_the_same_seed_samples_the_same_demonstrations(tiny: ModuleType, workshop: Path) -> None:
    first, again = (guided(tiny, workshop, workshop / "policy").pool() for _ in range(2))
    assert first == again
    by_prompt: dict[object, set[object]] = {}
    for each in first:
        by_prompt.setdefault(each.prompt.text, set()).add(each.response_ids)
    assert max(map(len, by_prompt.values())) == 2, "another sample of the same prompt"


def test_what_ends_the_guides_responses_alone_is_cut_off_too(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    """An id that its own generation config lists, and the policy's does not."""
    plain = guided(tiny, workshop, workshop / "policy", temperature=1e-4).pool()
    end = next(each.response_ids[1] for each in plain if len(set(each.response_ids[:2])) == 2)
    shutil.copytree(workshop / "policy", tmp_path / "guide")
    (tmp_path / "guide" / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, end]}))
    cut = [(each.prompt.text, each.response_ids) for each in plain if end not in each.response_ids]
    for each in plain:
        place = each.response_ids.index(end) if end in each.response_ids else 0
        cut += [(each.prompt.text, each.response_ids[:place])] if place else []
    found = guided(tiny, workshop, tmp_path / "guide", temperature=1e-4).pool()
    assert sorted((each.prompt.text, each.response_ids) for each in found) == sorted(cut)


def test_a_guide_with_another_tokenizer_is_refused_with_the_way_round(
    tiny: ModuleType, workshop: Path, tmp_path: Path
) -> None:
    shutil.copytree(workshop / "policy", tmp_path / "guide")
    file = tmp_path / "guide" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"unk_token": "a"}))
    with pytest.raises(ConfigError, match=r"another tokenizer .* - let `rlhf generate` write its responses"):
        guided(tiny, workshop, tmp_path / "guide")


def test_a_guide_with_too_few_positions_is_refused(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    shutil.copytree(workshop / "policy", tmp_path / "guide")
    file = tmp_path / "guide" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"max_position_embeddings": 8}))
    with pytest.raises(ConfigError, match=r"longest prompt \(\d+ tokens\) .* exceed the 8 positions"):
        guided(tiny, workshop, tmp_path / "guide")

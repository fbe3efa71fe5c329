"""Tests of rlhf.config.reading.loader."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlhf.config.reading.loader import config_fingerprint, load_config, load_mapping, save_config, validate
from rlhf.errors import CheckpointError, ConfigError


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ByFunction(Section):
    kind: Literal["function"]
    path: str
    weight: float = 1.0


class ByModel(Section):
    kind: Literal["model"]
    directory: Path


class Ppo(Section):
    kl_coef: float = Field(0.05, ge=0)
    learning_rate: float = Field(1e-5, gt=0)
    gamma: float = Field(1.0, ge=0, le=1)
    estimator: Literal["k1", "k3"] = "k1"
    betas: tuple[float, float] = (0.9, 0.95)
    max_steps: int | Literal["auto"] = "auto"
    batch: int = 64
    minibatch: int = 32
    rewards: list[Annotated[ByFunction | ByModel, Field(discriminator="kind")]] = []

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch % self.minibatch:
            raise ValueError(f"minibatch ({self.minibatch}) must divide batch ({self.batch})")
        return self


class Run(Section):
    output_dir: Path
    seed: int = 0
    whiten: bool = True
    hub_token: str | None = None
    ppo: Ppo = Ppo()
    sft: Ppo | None = None


def _refusal(mapping: dict[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(Run, {"output_dir": "runs/x", **mapping}, "x.yaml")
    lines = str(caught.value).splitlines()
    assert all(line.startswith("config error: x.yaml: ") for line in lines)
    return [line.removeprefix("config error: x.yaml: ") for line in lines]


def _file(directory: Path, text: str, name: str = "run.yaml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_a_file_with_overrides_becomes_a_checked_configuration(tmp_path: Path) -> None:
    path = _file(tmp_path, "output_dir: runs/x\nppo: {kl_coef: 1e-2, rewards: [{kind: model, directory: rm}]}\n")
    config = load_config(Run, path, ["ppo.gamma=0.5", "--ppo.rewards.0.directory=other", "ppo.betas=[0.8, 0.9]"])
    assert config == Run(
        output_dir=Path("runs/x"),
        ppo=Ppo(kl_coef=0.01, gamma=0.5, betas=(0.8, 0.9), rewards=[ByModel(kind="model", directory=Path("other"))]),
    )


@pytest.mark.parametrize(
    ("mapping", "line"),
    [
        ({"ppo": {"kl_coeff": 0.2}}, "ppo.kl_coeff: unknown key (did you mean ppo.kl_coef?) [got 0.2]"),
        ({"kl_coef": 0.2}, "kl_coef: unknown key (did you mean ppo.kl_coef?) [got 0.2]"),
        ({"ppo": {"output_dir": "x"}}, 'ppo.output_dir: unknown key (did you mean output_dir?) [got "x"]'),
        ({"zebra": 1}, "zebra: unknown key [got 1]"),
        ({"seed": "four"}, 'seed: must be an integer [got "four"]'),
        ({"seed": "4"}, 'seed: must be an integer [got "4"]'),
        ({"seed": 1.5}, "seed: must be an integer [got 1.5]"),
        ({"seed": None}, "seed: must be an integer [got null]"),
        ({"whiten": 1}, "whiten: must be true or false [got 1]"),
        ({"output_dir": 3}, "output_dir: must be text [got 3]"),
        ({"ppo": 3}, "ppo: must be a section (keys and values) [got 3]"),
        ({"ppo": {"gamma": True}}, "ppo.gamma: must be a number [got true]"),
        ({"ppo": {"gamma": 1.5}}, "ppo.gamma: must be at most 1 [got 1.5]"),
        ({"ppo": {"kl_coef": -1}}, "ppo.kl_coef: must be at least 0 [got -1]"),
        ({"ppo": {"learning_rate": 0}}, "ppo.learning_rate: must be greater than 0 [got 0]"),
        ({"ppo": {"learning_rate": float("nan")}}, "ppo.learning_rate: must be a finite number [got NaN]"),
        ({"ppo": {"learning_rate": float("inf")}}, "ppo.learning_rate: must be a finite number [got Infinity]"),
        ({"ppo": {"estimator": "k9"}}, "ppo.estimator: must be 'k1' or 'k3' [got \"k9\"]"),
        ({"ppo": {"betas": 3}}, "ppo.betas: must be a list [got 3]"),
        ({"ppo": {"betas": [0.9]}}, "ppo.betas.1: required, but missing"),
        ({"ppo": {"max_steps": "x"}}, "ppo.max_steps: must be an integer or 'auto' [got \"x\"]"),
        ({"ppo": {"max_steps": {"a": 1}}}, "ppo.max_steps: must be an integer or 'auto' [got {\"a\": 1}]"),
        ({"ppo": {"minibatch": 7}}, "ppo: minibatch (7) must divide batch (64)"),
        ({"ppo": {"rewards": [{"kind": "function"}]}}, "ppo.rewards.0.path: required, but missing"),
        (
            {"ppo": {"rewards": [{"kind": "functoin"}]}},
            "ppo.rewards.0: 'kind' must be one of 'function', 'model' (did you mean function?)"
            ' [got {"kind": "functoin"}]',
        ),
        ({"ppo": {"rewards": [{"path": "x"}]}}, 'ppo.rewards.0: must name its \'kind\' [got {"path": "x"}]'),
        (
            {"ppo": {"rewards": [{"kind": "function", "path": "a", "wieght": 2}]}},
            "ppo.rewards.0.wieght: unknown key (did you mean ppo.rewards.0.weight?) [got 2]",
        ),
        ({"seed": "x" * 200}, 'seed: must be an integer [got "' + "x" * 76 + "...]"),
        ({"seed": "\x1b]0;x"}, 'seed: must be an integer [got "\\u001b]0;x"]'),
        ({"hub_token": 12345}, "hub_token: must be text [got a secret]"),
    ],
)
def test_each_mistake_has_its_line(mapping: dict[str, object], line: str) -> None:
    assert _refusal(mapping) == [line]


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^config error: x\.yaml: output_dir: required, but missing$"):
        validate(Run, {}, "x.yaml")


def test_all_mistakes_are_reported_at_once_rules_between_keys_included() -> None:
    lines = _refusal({"seed": "x", "ppo": {"kl_coeff": 1, "gamma": 2, "minibatch": 7}, "sft": {"batch": 10, "kl": 1}})
    assert [line.split(":")[0] for line in lines] == ["seed", "ppo.gamma", "ppo.kl_coeff", "sft.kl", "ppo", "sft"]


def test_a_rule_is_not_blamed_on_what_stands_in_for_a_wrong_value() -> None:
    assert _refusal({"ppo": {"batch": "ten", "minibatch": 7}}) == ['ppo.batch: must be an integer [got "ten"]']


def test_a_mistake_on_the_command_line_is_called_so(tmp_path: Path) -> None:
    path = _file(tmp_path, "output_dir: x\nseed: a\n")
    with pytest.raises(ConfigError) as caught:
        load_config(Run, path, ["ppo.gamma=2", "ppo.rewards=[{kind: model}]"])
    assert str(caught.value).splitlines() == [
        f'config error: {path}: seed: must be an integer [got "a"]',
        "config error: command line: ppo.gamma: must be at most 1 [got 2]",
        "config error: command line: ppo.rewards.0.directory: required, but missing",
    ]


def test_a_section_may_lie_in_a_file_of_its_own_and_be_overridden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _file(tmp_path, "kl_coef: 0.3\ngamma: 0.5\n", "ppo.yaml")
    (tmp_path / "here").mkdir()
    _file(tmp_path / "here", "kl_coef: 0.7\n", "mine.yaml")
    path = _file(tmp_path, "output_dir: x\nppo: ppo.yaml\n")
    config = load_config(Run, path, ["ppo.gamma=0.9"])
    assert (config.ppo.kl_coef, config.ppo.gamma) == (0.3, 0.9)

    monkeypatch.chdir(tmp_path / "here")
    config = load_config(Run, path, ["ppo=mine.yaml", "ppo.gamma=0.9"])
    assert (config.ppo.kl_coef, config.ppo.gamma) == (0.7, 0.9)


def test_a_mapping_is_loaded_without_a_schema(tmp_path: Path) -> None:
    assert load_mapping(_file(tmp_path, "a: {b: 1}\n"), ["a.c=[2]"]) == {"a": {"b": 1, "c": [2]}}


def test_a_saved_configuration_loads_back_equal(tmp_path: Path) -> None:
    config = Run(
        output_dir=Path("1e-5"),
        ppo=Ppo(learning_rate=1e-5, rewards=[ByFunction(kind="function", path="my.py:score")]),
        sft=Ppo(max_steps=3),
    )
    save_config(config, tmp_path / "deep" / "config.yaml")
    assert load_config(Run, tmp_path / "deep" / "config.yaml") == config
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["config.yaml"]


def test_secrets_are_in_neither_the_file_nor_the_fingerprint(tmp_path: Path) -> None:
    config = Run(output_dir=Path("x"), hub_token="hf_abc")
    save_config(config, tmp_path / "config.yaml")
    assert "hf_abc" not in (tmp_path / "config.yaml").read_text()
    assert config_fingerprint(config) == config_fingerprint(config.model_copy(update={"hub_token": "other"}))


def test_a_configuration_that_cannot_be_written_is_a_checkpoint_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_config(Run(output_dir=Path("x")), tmp_path / "file" / "config.yaml")


def test_the_fingerprint_is_the_hash_of_canonical_json_and_sees_every_value() -> None:
    class Small(BaseModel):
        b: float = 1e-5
        a: int = 1

    assert config_fingerprint(Small()) == hashlib.sha256(b'{"a":1,"b":1e-05}').hexdigest()
    assert config_fingerprint(Small()) == config_fingerprint(Small(a=1))
    assert config_fingerprint(Small()) != config_fingerprint(Small(a=2))


def test_a_wrong_value_of_a_required_key_does_not_hide_a_rule_between_keys() -> None:
    class Strict(Section):
        steps: int = Field(ge=1)
        name: str
        rate: list[float] = []
        batch: int = 64
        minibatch: int = 32

        @model_validator(mode="after")
        def _divides(self) -> Self:
            if self.batch % self.minibatch:
                raise ValueError(f"minibatch ({self.minibatch}) must divide batch ({self.batch})")
            return self

    with pytest.raises(ConfigError) as caught:
        validate(Strict, {"steps": 0, "name": 3, "rate": [1, "x"], "minibatch": 7}, "x.yaml")
    assert str(caught.value).splitlines()[3:] == ["config error: x.yaml: minibatch (7) must divide batch (64)"]


def test_a_schema_may_complete_what_follows_from_other_keys() -> None:
    class Completed(Section):
        output_dir: str
        betas: tuple[float, float]
        ppo_dir: str

        @classmethod
        def completed(cls, mapping: Mapping[str, object]) -> Mapping[str, object]:
            return {"ppo_dir": f"{mapping['output_dir']}/ppo", **mapping}

    config = validate(Completed, {"output_dir": "x", "betas": [0.5, 0.9]}, "x.yaml")
    assert (config.ppo_dir, config.betas) == ("x/ppo", (0.5, 0.9))

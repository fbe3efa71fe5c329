"""Whatever a configuration or an override holds, it is taken or refused as documented."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from odd_values import ANYTHING, GARBAGE, TEXTS, damaged, trials
from rlhf.config import EvaluateConfig, PPOConfig, RunConfig
from rlhf.config.reading.loader import config_yaml, load_config, validate
from rlhf.config.reward_model import RewardModelConfig
from rlhf.config.sft import SftConfig
from rlhf.errors import ConfigError

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"
SCHEMAS: dict[str, type[BaseModel]] = {
    "sft": SftConfig,
    "reward_model": RewardModelConfig,
    "ppo": PPOConfig,
    "evaluate": EvaluateConfig,
    "run": RunConfig,
}
GOOD = {name: yaml.safe_load((SMOKE / f"{name}.yaml").read_text()) for name in SCHEMAS}
STAGES = st.sampled_from(list(SCHEMAS))
KEYS = sorted({key for name in SCHEMAS for key in SCHEMAS[name].model_fields})
CONFIGS = STAGES.flatmap(lambda name: st.tuples(st.just(name), damaged(GOOD[name], KEYS)))


@trials(150)
@given(config=CONFIGS)
def test_any_configuration_is_taken_or_refused(config: tuple[str, Any]) -> None:
    name, mapping = config
    if isinstance(mapping, dict):
        with suppress(ConfigError):
            config_yaml(validate(SCHEMAS[name], mapping, "x.yaml"))


@trials(40)
@given(name=STAGES, content=CONFIGS.map(lambda config: config[1]).map(yaml.safe_dump).map(str.encode) | GARBAGE)
def test_any_file_is_taken_or_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with suppress(ConfigError):
        load_config(SCHEMAS[name], path)


PARTS = st.sampled_from([*KEYS, "0", "-1", "9" * 30, "\u0663", "path", "kind", "lora", "a-b", ""]) | TEXTS
VALUES = (
    ANYTHING.map(str) | st.text(max_size=10) | st.sampled_from(["[" * 2000, "&a [*a]", "{a: 1", "!!python/none", "*x"])
)
ARGUMENTS = st.builds(
    lambda parts, value, times: f"{'.'.join(parts * times)}={value}",
    st.lists(PARTS, min_size=1, max_size=4),
    VALUES,
    st.sampled_from([1, 1, 1, 1, 3000]),
)


@trials(150)
@given(name=STAGES, arguments=st.lists(ARGUMENTS | st.text(max_size=10), min_size=1, max_size=3))
def test_any_override_is_taken_or_refused(name: str, arguments: list[str]) -> None:
    with suppress(ConfigError):
        load_config(SCHEMAS[name], SMOKE / f"{name}.yaml", arguments)

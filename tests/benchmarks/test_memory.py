import json

import memory


def test_a_switch_is_measured_phase_by_phase(tmp_path):
    memory.write_inputs(tmp_path, memory.QUICK)
    config = memory.settings(tmp_path, memory.SWITCHES["trainable_layers: 2"], quick=True)
    found = memory.measured(json.loads(json.dumps(config)))
    assert set(found) == set(memory.PHASES)
    assert memory.table({"a": dict.fromkeys(memory.PHASES, 1.4)}).splitlines()[2] == "| `a` | 1 | 1 | 1 | 1 |"


def test_every_switch_is_a_configuration(tmp_path):
    from rlhf.config import PPOConfig

    for switch in memory.SWITCHES.values():
        config = PPOConfig.model_validate(memory.settings(tmp_path, switch, quick=True))
        plain = PPOConfig.model_validate(memory.settings(tmp_path, {}, quick=True))
        assert all(getattr(config, name) != getattr(plain, name) for name in switch)

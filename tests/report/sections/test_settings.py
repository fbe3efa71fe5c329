"""Tests of rlhf.report.sections.settings."""

from rlhf.report.reading.run import read_run
from rlhf.report.sections.settings import differences, flat, is_one_recipe, set_by_user


def test_settings_that_are_not_the_defaults_come_with_them(planting, tmp_path):
    run = planting.plant(tmp_path)
    config = run / "ppo" / "config.yaml"
    config.write_text(
        config.read_text() + "gamma: 0.9\nepochs: 4\noptimizer: {eps: 1.0e-08, betas: [0.9, 0.95], weight_decay: 0.1}\n"
    )
    found = {setting.key: setting for setting in set_by_user(read_run(run).ppo)}
    assert (found["gamma"].value, found["gamma"].default) == ("0.9", "1.0")
    assert found["optimizer.weight_decay"].default == "0.0" and "decoupled" in found["optimizer.weight_decay"].meaning
    assert found["rewards.0.kind"].value == "length" and found["steps"].default == "-"
    assert not {"epochs", "kl_coef", "optimizer.eps", "optimizer.betas", "seed"} & found.keys()


def test_runs_of_one_recipe_differ_in_their_seeds_alone(planting, tmp_path):
    runs = [read_run(planting.plant(tmp_path / name, seed=seed)) for name, seed in (("a", 0), ("b", 1))]
    assert differences(runs) == [("ppo.seed", ["0", "1"])] and is_one_recipe(runs)
    assert not is_one_recipe(runs[:1])
    config = runs[1].ppo.path / "config.yaml"
    config.write_text(config.read_text().replace("kl_coef: 0.05", "kl_coef: 0.2"))
    runs[1] = read_run(runs[1].path)
    assert ("ppo.kl_coef", ["0.05", "0.2"]) in differences(runs) and not is_one_recipe(runs)


def test_nested_values_are_named_by_their_path():
    nested = {"a": {"b": 1, "c": {}}, "d": [{"e": 2}, {"f": [3, 4]}], "g": [1, 2]}
    assert flat(nested) == {"a.b": 1, "a.c": {}, "d.0.e": 2, "d.1.f": [3, 4], "g": [1, 2]}

import pytest
from transformers import AutoModelForCausalLM

from rlhf.forecast.origin import Unknown, classifier_sizes, language_sizes, origin_of, tuned_sizes
from rlhf.models.passes.anatomy import blocks


def test_a_model_that_an_earlier_stage_will_make_has_the_sizes_of_the_one_it_comes_from(recipe):
    run = recipe("reward_model.model.num_layers=1")
    assert origin_of(run.evaluate.policies["ppo"], run, "evaluate").source == "data/tiny_model"
    made = origin_of(run.ppo.rewards[0].path, run, "ppo")
    model, heads = classifier_sizes(made)
    assert made.source == "data/tiny_model" and len(blocks(model)) == 1 and len(heads) == 1
    assert len(blocks(language_sizes(origin_of(run.ppo.model.path, run, "ppo")))) > 1
    assert all(parameter.is_meta and not parameter.requires_grad for parameter in model.parameters())


def test_a_stage_does_not_wait_for_one_that_runs_later(recipe):
    run = recipe()
    with pytest.raises(Unknown, match=r"ppo/policy is not on this machine yet$"):
        origin_of(f"{run.output_dir}/ppo/policy", run, "ppo")


def test_a_model_of_the_hub_that_was_not_downloaded_is_unknown(recipe):
    with pytest.raises(Unknown, match=r"^org/model is not on this machine yet$"):
        origin_of("org/model", recipe(), "sft")


def test_an_adapter_that_goes_on_has_the_rank_that_sft_gives_it(recipe):
    run = recipe("sft.model.lora={r: 3}", "ppo.model.lora=continue")
    model = tuned_sizes(run.ppo.model, origin_of(run.ppo.model.path, run, "ppo"), AutoModelForCausalLM)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert {min(parameter.shape) for parameter in trained.values()} == {3}


def test_an_adapter_to_go_on_with_must_come_from_somewhere(recipe):
    run = recipe("ppo.model.lora=continue")
    with pytest.raises(Unknown, match="is no adapter"):
        tuned_sizes(run.ppo.model, origin_of(run.ppo.model.path, run, "ppo"), AutoModelForCausalLM)


def test_code_that_comes_with_a_model_is_not_run_for_a_forecast(recipe):
    run = recipe("sft.model.trust_remote_code=true")
    with pytest.raises(Unknown, match="runs code of its own"):
        tuned_sizes(run.sft.model, origin_of(run.sft.model.path, run, "sft"), AutoModelForCausalLM)

"""What a step tells beside its metrics."""

from rlhf.training.telemetry.last_step import LastStep, last_of


def test_figures_are_the_named_metrics_that_there_are_and_tokens_of_a_second():
    metrics = {"loss": 0.5, "seconds": 2.0, "other": 1.0}
    assert LastStep(tokens=300).figures(metrics, ("loss", "missing")) == {"loss": 0.5, "tokens/s": 150.0}
    assert LastStep().figures(metrics, ("loss",)) == {"loss": 0.5}


def test_steps_that_cannot_tell_tell_nothing():
    assert last_of(object()) == LastStep()

"""Tests of rlhf.doctor.sampler."""

from functools import partial

from rlhf.sampling import batched
from rlhf.sampling.sampler import sample


def test_a_sampler_with_another_temperature_fails(config, examined, troubles, monkeypatch) -> None:
    def hotter(*arguments, temperature, **options):
        return sample(*arguments, temperature=1.2 * temperature, **options)

    monkeypatch.setattr(batched, "sample", hotter)
    findings = examined(config())
    assert troubles(findings) == {"sampler": "failing"}
    assert "another temperature" in findings["sampler"].advice


def test_the_temperature_of_the_config_is_that_of_both(config, examined, troubles) -> None:
    assert troubles(examined(config(sampling__temperature=0.7))) == {}


def test_a_token_far_off_is_warned_of(config, examined, troubles, monkeypatch) -> None:
    def off(*arguments, **options):
        samples = sample(*arguments, **options)
        samples.logprobs[0, 0] += 1e-4  # of about 40 tokens: 2.5e-6 on average
        return samples

    monkeypatch.setattr(batched, "sample", partial(off))
    assert troubles(examined(config(sampling__batch_rows=8))) == {"sampler": "warning"}


def test_bfloat16_has_a_wider_limit(config, examined) -> None:
    finding = examined(config(model__precision="bfloat16"))["sampler"]
    # eps 2^-7, two blocks: 3 x 0.011 on average, 16 x 0.011 at most.
    assert "limit in bfloat16 0.033" in finding.measured and "limit 0.18" in finding.measured
    assert finding.state == "ok"

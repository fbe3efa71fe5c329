import numpy as np
import pytest
import torch

from rlhf.lab.language_model.gradient_batch import Batch
from rlhf.lab.language_model.gradient_noise import REFERENCE, RUNGS
from rlhf.lab.language_model.gradient_report import InnerProducts, figures, finding, scatter_of, table
from rlhf.lab.language_model.gradient_statistics import inner_products

BATCH = Batch(
    num_episodes=64, num_tokens=600, num_weights=40, score=0.5, score_std=1.0, kl=2.0, explained_variance=0.1,
    kl_share=0.05,
)  # fmt: skip


def measured(noises):
    """Gradients of 32 minibatches: 1 in each of 40 numbers, plus noise of this deviation, the same draws for all."""
    draws = torch.randn(32, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = {name: 1.0 + noise * draws for name, noise in noises.items()}
    reference = rows[REFERENCE]
    own = inner_products(reference, reference)
    return {
        name: InnerProducts(gram=inner_products(each, each), cross=inner_products(each, reference), reference=own)
        for name, each in rows.items()
    }


def falling():
    return dict(zip(RUNGS, (8.0, 8.0, 4.0, 2.0, 1.0, 3.0, 3.0), strict=True))


def test_the_figures_are_those_of_a_known_ratio():
    # |G|^2 = 40, tr Sigma = 40 * noise^2: ratios 1 / noise^2; the cosine to the true direction is
    # 1 / sqrt(1 + noise^2), and to the mean of 31 others a little less.
    scatter = scatter_of(measured(falling()), 0)
    for name, noise in falling().items():
        ratio = scatter[name].ratio
        assert ratio.low < 1 / noise**2 < ratio.high
        assert ratio.low < ratio.value < ratio.high
    assert scatter["gae, lambda 0"].to_rest.value == pytest.approx(0.5**0.5, abs=0.05)
    assert scatter[REFERENCE].whole == pytest.approx(1.0)
    assert np.array_equal(scatter[REFERENCE].cosines.mean(), scatter[REFERENCE].to_rest.value)


@pytest.mark.slow
def test_the_finding_tells_what_climbs_and_what_is_not_told_apart():
    text = finding(scatter_of(measured(falling()), 0), BATCH, 0)
    assert "the ratios should climb: on this batch they do, and 2 of the 3 steps" in text
    steps = {part.split(" -> ")[0]: part for part in text.split("by minibatch: ")[1].split(". The")[0].split("; ")}
    assert steps["trajectory"].endswith("not told apart") and "+0.000 [+0.000, +0.000]" in steps["trajectory"]
    assert steps["baseline"].endswith("better")
    rising = dict(zip(RUNGS, (1.0, 2.0, 4.0, 8.0, 8.0, 3.0, 3.0), strict=True))
    text = finding(scatter_of(measured(rising), 0), BATCH, 0)
    assert "they do not, and 0 of the 3 steps" in text and "worse" in text


def test_the_table_says_how_many_episodes_a_ratio_of_1_takes():
    rows = {row[0]: row for row in table(scatter_of(measured(falling()), 0), 8).rows}
    assert list(rows) == list(RUNGS)
    assert float(rows["gae, lambda 0"][2]) == pytest.approx(8.0, rel=0.2)
    hopeless = dict.fromkeys(RUNGS, 1e3)
    assert table(scatter_of(measured(hopeless), 0), 8).rows[0][2] == "cannot be told from infinity"


def test_the_curves_begin_at_one_minibatch_and_double():
    everything = measured(falling())
    ratios, cosines = figures(everything, scatter_of(everything, 0), 8, 0)
    assert [curve.label for curve in ratios.curves] == [curve.label for curve in cosines.curves] == list(RUNGS)
    for curve in cosines.curves:
        assert curve.x == [8.0, 16.0, 32.0] and curve.y == sorted(curve.y)

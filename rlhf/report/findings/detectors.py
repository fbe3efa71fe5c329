"""The table of all detectors. A new one is a function in a file beside this one, and its line here."""

from rlhf.report.findings.diversity import diversity_lost
from rlhf.report.findings.finding import Detector, Finding, finding
from rlhf.report.findings.openings import repeated_openings
from rlhf.report.findings.policy_signs import (
    clip_fraction,
    entropy_collapse,
    eos_lost,
    first_ratio,
    kl_runaway,
    not_finite,
)
from rlhf.report.findings.reward_signs import critic_explains_nothing, hardly_varies, judges_part, length_exploited
from rlhf.report.reading.run import Run

DETECTORS = (
    Detector(
        key="judges-part",
        title="The reward rose, the independent judge fell",
        look=judges_part,
        chart="comparison",
        remedy="Raise `kl_coef`, stop earlier (compare saved checkpoints), or train the reward model on the policy's "
        "own answers. Read the samples on which the judges disagree most.",
        caveat="The independent judge errs too: it may dislike a style that readers like. Read the samples.",
    ),
    Detector(
        key="length-exploited",
        title="Length is exploited",
        look=length_exploited,
        chart="val/response_length",
        remedy="Add a `length` reward with a negative weight, or train the reward model on pairs of like length.",
        caveat="Longer answers may be better ones. Compare answers of like length by an independent judge.",
    ),
    Detector(
        key="entropy-collapse",
        title="Entropy collapsed",
        look=entropy_collapse,
        chart="objective/entropy",
        remedy="Lower the learning rate or the number of epochs, raise `kl_coef`, or set `entropy_coef` "
        "to 0.001 to 0.01.",
        caveat="A task with one right answer ends in low entropy. Then the answers are right, and still differ "
        "by prompt.",
    ),
    Detector(
        key="repeated-openings",
        title="Answers begin alike",
        look=repeated_openings,
        chart="followed",
        remedy="Raise `kl_coef`, add a `repetition` reward, and read what the reward pays for that opening.",
        caveat="A format that was asked for is an opening that all answers share.",
    ),
    Detector(
        key="diversity-lost",
        title="Samples repeat each other",
        look=diversity_lost,
        chart="followed",
        remedy="Raise `kl_coef`, lower the learning rate, add a `repetition` reward, or stop earlier.",
        caveat="The policy may have learnt a style or a form that was asked for. Read the samples.",
    ),
    Detector(
        key="critic-explains-nothing",
        title="The critic explains nothing",
        look=critic_explains_nothing,
        chart="val/explained_variance",
        remedy="Raise `value_optimizer.learning_rate`, start the critic from the reward model (`critic: separate`), or "
        "use `advantage: rloo` with several samples a prompt, which needs no critic.",
        caveat="Where returns hardly differ or are mostly noise there is little to explain, and PPO may learn all "
        "the same.",
    ),
    Detector(
        key="kl-runaway",
        title="The KL runs away",
        look=kl_runaway,
        chart="objective/kl",
        remedy="Raise `kl_coef`, use `kl_control.controller: adaptive`, set `kl_control.max_kl`, or lower the "
        "learning rate.",
        caveat="The KL is a sum over the response: long responses have more of it. See `objective/kl_per_token`.",
    ),
    Detector(
        key="eos-lost",
        title="Responses stopped ending",
        look=eos_lost,
        chart="val/share_ended",
        remedy="Set `score.missing_eos_penalty`, raise `sampling.max_new_tokens`, or train the reward model with "
        "`unfinished_fraction`.",
        caveat="Longer answers that are wanted run into `sampling.max_new_tokens` as well.",
    ),
    Detector(
        key="clip-fraction",
        title="The clip fraction is out of range",
        look=clip_fraction,
        chart="policy/clipfrac_avg",
        remedy="Too high: lower the learning rate or `epochs`, or set `target_kl`. None: raise the learning rate.",
        caveat="A small learning rate that is meant to be small clips nothing, and may still learn over many steps.",
    ),
    Detector(
        key="hardly-varies",
        title="Rewards hardly vary",
        look=hardly_varies,
        chart="objective/scores_std",
        remedy="See whether the reward is saturated or clipped (`score.clip`), and whether prompts are too easy or too "
        "hard.",
        caveat="A task that is solved has equal scores at the end.",
    ),
    Detector(
        key="first-ratio",
        title="The first ratio is not 1",
        look=first_ratio,
        chart="val/first_ratio_deviation",
        remedy="Run `rlhf doctor`: the update computes other logprobs than the rollout, so the loss is wrong.",
        caveat="A model of your own that draws random numbers in its pass has this too; switch that off.",
    ),
    Detector(
        key="not-finite",
        title="Numbers were not finite",
        look=not_finite,
        chart="what-ran",
        remedy="Lower the learning rate, compute in float32, and look at the first step that has them.",
        caveat="A correlation of a batch without spread is no number, and does no harm.",
    ),
)
"""In the order of the page."""


def findings(run: Run) -> list[Finding]:
    """Let every detector look at a run; none where the run has no PPO stage and no evaluation."""
    if run.ppo is None and run.evaluation is None:
        return []
    return [finding(detector, run) for detector in DETECTORS]

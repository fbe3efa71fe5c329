"""One policy of a comparison: it answers, and everything about its answers is measured."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rlhf.config import EvaluateSettings
from rlhf.config.judges import BestOfSection, OpenAIJudgeSection
from rlhf.data.records import Prompt
from rlhf.evaluation.human import HumanTexts
from rlhf.evaluation.judges.scorers import Scorers
from rlhf.evaluation.judges.verdicts import pairs_of
from rlhf.evaluation.readers import PolicyGenerations, Readers, response_perplexity, whole_words
from rlhf.evaluation.respond import Answering, Policy, Response, logprobs_of_both, respond, temperature_of
from rlhf.evaluation.statistics.best_of_n import kl_bound, kl_of_winners
from rlhf.training.randomness import generator
from rlhf.training.telemetry.progress import Progress

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What a policy answered, and how likely that was."""

    prompts: list[Prompt]
    """[R] each prompt as often as it is answered."""
    responses: list[Response]
    """[R]"""
    ours: Floats
    """[R] log probability under the policy, in nats."""
    theirs: Floats
    """[R] under the reference."""


def work(settings: EvaluateSettings, names: Sequence[str], num_prompts: int, further: int = 0) -> int:
    """Return the steps of an evaluation: an answer is drawn, it is measured, and a judge of pairs compares it.

    Args:
        settings: of the evaluation.
        names: of its policies.
        num_prompts: that each of them answers.
        further: answers to each prompt that are drawn besides.
    """
    samples, best_of = settings.samples_per_prompt, settings.best_of
    names = [*names, *([] if best_of is None else [f"best of {best_of.n}"])]
    drawn = samples * (len(names) if best_of is None else len(names) - 1 + best_of.n)
    pairs = [
        len(pairs_of(names, section.pairs))
        for section in settings.judges.values()
        if isinstance(section, OpenAIJudgeSection)
    ]
    return num_prompts * (drawn + samples * (len(names) + sum(pairs)) + further)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """What every policy of a comparison is measured with."""

    settings: EvaluateSettings
    reference: Policy
    readers: Readers
    scorers: Scorers
    human: HumanTexts | None
    answering: Answering
    progress: Progress
    """Shows how far the evaluation has come, in the steps of `work`."""

    def answered(self, policy: Policy, prompts: Sequence[Prompt]) -> Answered:
        """Let a policy answer every prompt `samples_per_prompt` times."""
        asked = [prompt for prompt in prompts for _ in range(self.settings.samples_per_prompt)]
        # Every policy draws the same uniform numbers: a policy compared with itself gives the same responses.
        responses = self._respond(policy, asked, "evaluate")
        return self._with_logprobs(policy, asked, responses)

    def best(self, policy: Policy, prompts: Sequence[Prompt], section: BestOfSection) -> Answered:
        """Return, for every prompt and sample, the best of n answers by a judge; among equals the first."""
        asked, drawn = self.drawn(policy, prompts, self.settings.samples_per_prompt * section.n)
        scores = self.score(section.chooser, asked, drawn)
        groups = np.where(np.isnan(scores), -np.inf, scores).reshape(-1, section.n)
        chosen = np.arange(len(groups)) * section.n + groups.argmax(axis=1)
        return self._with_logprobs(policy, [asked[row] for row in chosen], [drawn[row] for row in chosen])

    def drawn(self, policy: Policy, prompts: Sequence[Prompt], number: int) -> tuple[list[Prompt], list[Response]]:
        """Return `number` answers to each prompt, other ones than those that are compared."""
        asked = [prompt for prompt in prompts for _ in range(number)]
        return asked, self._respond(policy, asked, "best_of")

    def score(self, judge: str, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Floats:
        """Return one judge's scores [R] of responses; NaN where it gives none."""
        scores = self.readers.score(judge, prompts, responses)
        return self.scorers.score(judge, prompts, responses) if scores is None else scores

    def measured(self, policy: Policy, answered: Answered, best_of: int | None = None) -> PolicyGenerations:
        """Return a policy's answers with what every judge says; `best_of` tells how many each was chosen from.

        A best of n is log p_n - log p from its policy, and that policy log p - log p_reference from the reference: its
        KL is their sum, the first part estimated from the probability of each winner.
        """
        settings = self.settings
        kl = answered.ours - answered.theirs
        if best_of is not None:
            kl = kl + kl_of_winners(answered.ours, best_of)
        is_greedy = temperature_of(policy, settings.decoding) == 0
        scores = self.scorers.scores(answered.prompts, answered.responses)
        found = self.readers.read(
            answered.prompts, answered.responses, kl, scores, samples_per_prompt=settings.samples_per_prompt
        )
        if best_of is not None:
            return replace(found, kl_bound=kl_bound(best_of))
        surprise = None if is_greedy else -answered.ours
        return replace(found, surprise=surprise, human_perplexity=self._human_perplexity(policy))

    def human_read(self) -> PolicyGenerations | None:
        """Return what people wrote, read by the same judges; None where there is no human text.

        Judges that are rewards read it only where it answers the same prompts: they may need the prompt's columns.
        """
        if self.human is None:
            return None
        prompts, responses = self.human.prompts, self.human.responses
        named = [name for name in self.scorers.names if name in self.settings.judges and self.human.same_prompts]
        scores = {name: self.scorers.score(name, prompts, responses) for name in named}
        return self.readers.read(prompts, responses, None, scores)

    def _respond(self, policy: Policy, asked: list[Prompt], stream: str) -> list[Response]:
        numbers = generator(self.settings.seed, stream)
        return respond(policy, asked, self.settings.decoding, numbers, self.answering, self.progress.advance)

    def _human_perplexity(self, policy: Policy) -> Floats | None:
        if self.human is None:
            return None
        texts = [whole_words(response) for response in self.human.responses]
        return response_perplexity(policy, self.human.prompts, texts, self.settings.microbatch_tokens)

    def _with_logprobs(self, policy: Policy, asked: list[Prompt], responses: list[Response]) -> Answered:
        ours, theirs = logprobs_of_both(
            policy,
            self.reference,
            asked,
            responses,
            temperature=temperature_of(policy, self.settings.decoding) or 1.0,
            max_tokens=self.settings.microbatch_tokens,
        )
        return Answered(prompts=asked, responses=responses, ours=ours, theirs=theirs)

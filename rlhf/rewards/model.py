"""A reward model as a reward: a sequence classifier with one label."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from rlhf.errors import ConfigError
from rlhf.functional.token_budget import token_budget_batches
from rlhf.models.loading import check_vocabulary, frozen_in, load_scalar_lm
from rlhf.models.scalar import ScalarModel
from rlhf.models.tokenizer import load_tokenizer, tokenizer_fingerprint
from rlhf.rewards.checks import checked_scores
from rlhf.rewards.protocol import Episode


class ModelReward:
    """Scores prompt and response together, at the last token.

    With the policy's own tokenizer the model reads the very tokens; with another one the text goes across.
    """

    def __init__(
        self,
        path: str,
        policy_tokenizer: PreTrainedTokenizerBase,
        *,
        dtype: torch.dtype,
        device: torch.device,
        max_tokens: int = 4096,
    ) -> None:
        """Load the model, frozen.

        Args:
            path: directory or hub name of a sequence classifier with one label.
            policy_tokenizer: what the token ids of episodes mean.
            max_tokens: padded tokens of one forward pass.

        Raises:
            ConfigError: the model cannot be loaded, or has another number of labels.
        """
        classifier = load_scalar_lm(path, new_head=False)
        self.path = path
        self.tokenizer = load_tokenizer(path)
        check_vocabulary(classifier, self.tokenizer, path)
        self.model = ScalarModel(frozen_in(classifier, dtype).to(device))
        self._shares_tokens = tokenizer_fingerprint(self.tokenizer) == tokenizer_fingerprint(policy_tokenizer)
        self._max_tokens = max_tokens

    @torch.no_grad()
    def score(self, episodes: Sequence[Episode]) -> list[float]:
        """Return one score an episode, in order.

        Raises:
            RewardError: a score is not finite.
        """
        rows = [self._ids(episode) for episode in episodes]
        device = self.model.classifier.device
        scores = torch.zeros(len(rows))
        for items in token_budget_batches([len(row) for row in rows], self._max_tokens):
            width = max(len(rows[item]) for item in items)
            ids = torch.tensor([rows[item] + [0] * (width - len(rows[item])) for item in items], device=device)
            lengths = torch.tensor([len(rows[item]) for item in items], device=device)
            mask = torch.arange(width, device=device) < lengths[:, None]
            scores[items] = self.model(ids, mask).float().cpu()
        return checked_scores(scores, len(rows), f"reward model {self.path}", [episode.prompt for episode in episodes])

    def close(self) -> None:
        """Hold nothing that needs closing."""

    def _ids(self, episode: Episode) -> list[int]:
        if self._shares_tokens:
            return [*episode.prompt_ids, *episode.response_ids]
        if isinstance(episode.prompt, str):
            return list(self.tokenizer(episode.prompt + episode.completion).input_ids)
        if self.tokenizer.chat_template is None:
            raise ConfigError(f"{self.path}: the prompts are messages, and this reward model's tokenizer has no chat template")
        messages = [*episode.prompt, {"role": "assistant", "content": episode.completion}]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False)
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

"""A reward model from Python: `RewardTrainer`.

What it does stands in `rlhf/reward_model.py`; the stage of `rlhf reward-model` runs the same.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedModel

from rlhf.api.callbacks import Callback
from rlhf.api.data import GivenRows, digest_of_items, given_source
from rlhf.api.models import GivenTokenizer, digest_of, given_language, given_reward_model, name_or_model
from rlhf.api.supervised import Evaluation, SupervisedTrainer
from rlhf.api.trainer import checked_config
from rlhf.config import RewardSettings
from rlhf.config.shared import FittingSection
from rlhf.data.records import Pair
from rlhf.reward_model import PreferenceTask
from rlhf.stage import Frame
from rlhf.supervised_run import Learner, make_learner


class RewardTrainer(SupervisedTrainer[Pair]):
    """Trains a scalar model of what people prefer.

        trainer = RewardTrainer("path/to/policy", config=RewardSettings(epochs=1))
        trainer.train([{"prompt": "The film", "chosen": " was good.", "rejected": " was."}, ...])
        trainer.save("path/to/reward_model")

    Under `accelerate launch` every process does the same calls with the same rows, and takes its share.
    """

    stage: ClassVar[str] = "reward_model"
    result: ClassVar[str] = PreferenceTask.result
    config: RewardSettings
    _task: PreferenceTask

    def __init__(
        self,
        model: PreTrainedModel | str | Path,
        tokenizer: GivenTokenizer = None,
        config: RewardSettings | None = None,
        *,
        output_dir: str | Path | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Load what is given by name, and make the model ready. Seeds the global generators, as a stage does.

        Args:
            model: a causal language model, of which a copy gets a new scalar head; a sequence classifier with one
                label, which is trained in place and keeps its head; or a name, which gets a new head as in the stage.
            tokenizer: of the model, which stays as it is; None for the one beside the model.
            config: how it learns.
            output_dir: where `train` writes metrics, checkpoints and the reward model; None writes nothing.
            callbacks: are told of steps, saves and evaluations.

        Raises:
            RlhfError: something cannot be loaded, or does not fit together.
        """
        settings = checked_config(config, RewardSettings, "model, tokenizer, config")
        super().__init__(settings, output_dir, callbacks)
        start = name_or_model(model)
        own = given_language(tokenizer, start, settings.model).tokenizer
        self._digests = [] if self.output_dir is None else [digest_of(start)]
        self._task = PreferenceTask(settings)
        trained = given_reward_model(start, settings, own)
        self._learner = make_learner(self._task, self._run, trained, own)

    def train(
        self,
        data: GivenRows,
        *,
        evaluation: Evaluation | None = None,
        evaluate_every: int | None = None,
        demonstrations: GivenRows | None = None,
    ) -> list[dict[str, float]]:
        """Do the `epochs` or `steps` of the config, with metrics, checkpoints and the reward model in `output_dir`.

        A run in `output_dir` that was stopped goes on from its newest checkpoint.

        Args:
            data: mappings with `chosen` and `rejected`, a data set, or the name of one.
            evaluation: held-out rows of the same kind; or a function of this trainer that returns metrics.
            evaluate_every: steps between evaluations; None evaluates after the last step alone.
            demonstrations: texts on which the mean score is set to 0 after training; None leaves it as it is.

        Returns:
            The metrics of each step that was done, under the names of metrics.jsonl.

        Raises:
            RlhfError: bad data or checkpoint, or a guard or a signal stopped the run.
        """
        if demonstrations is None:
            return self._train(data, evaluation, evaluate_every)
        fitting = self.config.demonstrations or FittingSection(**self.config.data.fitting)
        source = given_source(demonstrations, "demonstrations", fitting).in_memory()

        def centring(learner: Learner, run: Frame) -> Callable[[], None]:
            return self._task.centring(learner, source, run)

        return self._train(data, evaluation, evaluate_every, centring, [digest_of_items(source.known_rows)])

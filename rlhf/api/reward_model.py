"""A reward model from Python: `RewardTrainer`.

`rlhf/reward_model.py` has the task itself; `rlhf reward-model` runs the same code.
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
from rlhf.stage.frame import Frame
from rlhf.stage.supervised import Learner, make_learner


class RewardTrainer(SupervisedTrainer[Pair]):
    """Trains a reward model on preference pairs.

        trainer = RewardTrainer("path/to/policy", config=RewardSettings(epochs=1))
        trainer.train([{"prompt": "The film", "chosen": " was good.", "rejected": " was."}, ...])
        trainer.save("path/to/reward_model")

    Under `accelerate launch` every process makes the same calls with the same rows, and works on its share.
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
        """Load what is passed by name, and prepare the model. Seeds the global generators, as a stage does.

        Args:
            model: a causal language model (a copy gets a new scalar head), a sequence classifier with one label
                (trained in place, keeps its head), or a name (loaded with a new head, as in the stage).
            tokenizer: the model's; left unchanged; None loads the one saved with the model.
            config: the settings of the run.
            output_dir: where `train` writes metrics, checkpoints and the reward model; None writes nothing.
            callbacks: called after each step, save and evaluation.

        Raises:
            RlhfError: something cannot be loaded, or the parts do not fit together.
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
        """Do the `epochs` or `steps` of the config; metrics, checkpoints and the reward model go to `output_dir`.

        A stopped run in `output_dir` resumes from its newest checkpoint; of a complete one, model and history are taken
        up and nothing is done. Another call does as many steps again.

        Args:
            data: mappings with `chosen` and `rejected`, a data set, or the name of one.
            evaluation: held-out rows of the same kind; or a function of this trainer that returns metrics.
            evaluate_every: steps between evaluations; None evaluates only after the last step.
            demonstrations: texts whose mean score is set to 0 after training; None does not shift the scores.

        Returns:
            The metrics of each step that this trainer has done, named as in metrics.jsonl.

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

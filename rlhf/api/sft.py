"""SFT from Python: `SFTTrainer`.

`rlhf/sft.py` has the task itself; `rlhf sft` runs the same code.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rlhf.api.callbacks import Callback
from rlhf.api.generation import Generating
from rlhf.api.models import GivenTokenizer, Model, check_kind, digest_of, given_language, given_policy, name_or_model
from rlhf.api.supervised import SupervisedTrainer
from rlhf.api.trainer import checked_config
from rlhf.config import SFTSettings
from rlhf.data.records import Example
from rlhf.sft import CloningTask
from rlhf.stage.supervised import make_learner


class SFTTrainer(SupervisedTrainer[Example], Generating):
    """Trains a policy to answer as in demonstrations.

        trainer = SFTTrainer("path/to/model", config=SFTSettings(epochs=1))
        trainer.train([{"prompt": "The film", "completion": " was long."}, ...])
        trainer.save("path/to/policy")

    A model you pass is trained in place, in the run's compute type. Under `accelerate launch` every process makes the
    same calls with the same rows, and works on its share.
    """

    stage: ClassVar[str] = "sft"
    result: ClassVar[str] = CloningTask.result
    config: SFTSettings

    def __init__(
        self,
        policy: Model | Path,
        tokenizer: GivenTokenizer = None,
        config: SFTSettings | None = None,
        *,
        output_dir: str | Path | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        """Load what is passed by name, and prepare the model. Seeds the global generators, as a stage does.

        Args:
            policy: a causal language model or adapter (peft), or the name of one; `config.model` says what is trained.
            tokenizer: the policy's; left unchanged; None loads the one saved with the policy.
            config: the settings of the run.
            output_dir: where `train` writes metrics, checkpoints and the policy; None writes nothing.
            callbacks: called after each step, save and evaluation.

        Raises:
            RlhfError: something cannot be loaded, or the parts do not fit together.
        """
        settings = checked_config(config, SFTSettings, "policy, tokenizer, config")
        start = name_or_model(policy)
        check_kind("policy", start)
        super().__init__(settings, output_dir, callbacks)
        own = given_language(tokenizer, start, settings.model).tokenizer
        self._digests = [] if self.output_dir is None else [digest_of(start)]
        trained = given_policy(start, settings.model, own)
        self._task = CloningTask(settings)
        self._learner = make_learner(self._task, self._run, trained, own)

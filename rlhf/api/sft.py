"""SFT from Python: `SFTTrainer`.

What it does stands in `rlhf/sft.py`; the stage of `rlhf sft` runs the same.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rlhf.api.callbacks import Callback
from rlhf.api.models import GivenTokenizer, Model, check_kind, digest_of, given_language, given_policy, name_or_model
from rlhf.api.supervised import SupervisedTrainer
from rlhf.api.trainer import checked_config
from rlhf.config import SFTSettings
from rlhf.data.records import Example
from rlhf.sft import CloningTask
from rlhf.supervised_run import make_learner


class SFTTrainer(SupervisedTrainer[Example]):
    """Trains a policy to answer as in demonstrations.

        trainer = SFTTrainer("path/to/model", config=SFTSettings(epochs=1))
        trainer.train([{"prompt": "The film", "completion": " was long."}, ...])
        trainer.save("path/to/policy")

    A model that is given is trained in place, in the run's compute type. Under `accelerate launch` every process does
    the same calls with the same rows, and takes its share.
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
        """Load what is given by name, and make the model ready. Seeds the global generators, as a stage does.

        Args:
            policy: a causal language model or adapter (peft), or the name of one; `config.model` says what is trained.
            tokenizer: of the policy, which stays as it is; None for the one beside the policy.
            config: how it learns.
            output_dir: where `train` writes metrics, checkpoints and the policy; None writes nothing.
            callbacks: are told of steps, saves and evaluations.

        Raises:
            RlhfError: something cannot be loaded, or does not fit together.
        """
        settings = checked_config(config, SFTSettings, "policy, tokenizer, config")
        start = name_or_model(policy)
        check_kind("policy", start)
        super().__init__(settings, output_dir, callbacks)
        own = given_language(tokenizer, start).tokenizer
        self._digests = [] if self.output_dir is None else [digest_of(start)]
        trained = given_policy(start, settings.model, own)
        self._task = CloningTask(settings)
        self._learner = make_learner(self._task, self._run, trained, own)

"""The lecture, measured: `rlhf lab` runs its experiments and writes one page.

Belongs here: the list of experiments, their settings and results, and the page that shows them. Not here: an
experiment; those on tables of logits are in `tabular/`, those with a language model in `language_model/`.
"""

import importlib
import importlib.util
from pathlib import Path

from rlhf.errors import ConfigError
from rlhf.lab.options import LabOptions

_NEEDED = "matplotlib"


def run(options: LabOptions) -> Path:
    """Run the experiments and return the page.

    Raises:
        ConfigError: matplotlib is missing, or there are several processes.
        CheckpointError: the output directory holds something else, or cannot be written.
    """
    if importlib.util.find_spec(_NEEDED) is None:
        raise ConfigError(f"lab: {_NEEDED} not installed - pip install 'rlhf-ppo[lab]'")
    page: Path = importlib.import_module("rlhf.lab.study").study(options)
    return page

"""What a PPO configuration needs on accelerators: memory by phase, time, cost, and what stands in the way.

Belongs here: arithmetic on sizes, and makers' figures of devices. Not here: measurement (`forecast/` measures this
machine), and anything that loads weights.
"""

import importlib

from rlhf.plan.options import PlanOptions


def plan(options: PlanOptions) -> None:
    """Print what each way of running a configuration takes.

    Raises:
        ConfigError: a model of the configuration is not on this machine.
    """
    importlib.import_module("rlhf.plan.planning").plan(options)

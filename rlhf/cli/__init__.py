"""The command line: read a configuration, call a stage, print where the results are.

Belongs here: the verbs, their options and help, the shells' completion, and how an error becomes lines and a status.
Not here: anything that needs torch; a verb's module is imported when the verb runs.
"""

from rlhf.cli.command import console, main
from rlhf.cli.verbs import STAGES, verb_of

__all__ = ["STAGES", "console", "main", "verb_of"]

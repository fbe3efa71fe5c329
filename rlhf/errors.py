"""The failures that a user can cause or run into, each with the exit status that the command line returns."""


class RlhfError(Exception):
    """A failure with one clear line: what, where, found, expected, how to fix it."""

    exit_status = 1


class ConfigError(RlhfError):
    """A configuration or a command line that cannot be run; may hold several lines, one per error."""

    exit_status = 2


class DataError(RlhfError):
    """A row, a file or a download that cannot be used; names file and line."""

    exit_status = 3


class CheckpointError(RlhfError):
    """A checkpoint or a run directory that cannot be read or written."""

    exit_status = 4


class HubError(CheckpointError):
    """An upload that failed after the result was written."""


class RewardError(RlhfError):
    """A reward that failed or returned something other than one finite number per response."""

    exit_status = 5


class GuardStop(RlhfError):
    """A guard stopped the run: a non-finite number, or a KL beyond its limit."""

    exit_status = 6


class EngineError(RlhfError):
    """An engine that does not draw responses, or not from the weights that are trained."""

    exit_status = 7


class LostProcess(RlhfError):
    """Another process of the run ended, did not come, or did not answer in time; its own message says why."""


class Terminated(RlhfError):
    """SIGTERM was received and a checkpoint was saved."""

    exit_status = 143

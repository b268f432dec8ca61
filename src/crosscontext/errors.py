"""What can go wrong, and with which exit code the command line then ends.

Every message says what is wrong with the value, what was expected, and what to do.
Only `cli.py` turns an error into a printed line and an exit code.
"""

EXIT_OK = 0
EXIT_OF_SIGNAL = 128
EXIT_INTERRUPTED = EXIT_OF_SIGNAL + 2
EXIT_TERMINATED = EXIT_OF_SIGNAL + 15


class CrossContextError(Exception):
    """Any failure that a user can understand and mend."""

    exit_code: int = 1


class SettingsError(CrossContextError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or at odds with another one."""

    exit_code = 2


class DataError(CrossContextError, ValueError):
    """A data set is missing, empty, too small, without the labels that a task needs, or mostly unreadable."""


class ImageError(CrossContextError, ValueError):
    """One image cannot be decoded; training replaces it, and counts it."""


class RunFolderError(CrossContextError):
    """A run folder exists already, lacks what was asked of it, or cannot be written."""


class CheckpointError(CrossContextError, ValueError):
    """A checkpoint is missing, unreadable, of another format version, or of another architecture."""


class ImageIndexError(CrossContextError, ValueError):
    """An index of images is missing, damaged, or made by another model or from another folder."""


class NonFiniteError(CrossContextError, ArithmeticError):
    """A loss term became NaN or infinite; the last good checkpoint is kept."""


class StudyError(CrossContextError):
    """Runs of a study have failed, the others are finished; the same command tries again what failed."""


class StoppedEarlyError(CrossContextError):
    """The run was asked to stop and saved a good checkpoint: the same command with --resume goes on."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: a scheduler may run the job again


class InterruptedRunError(CrossContextError):
    """Ctrl-C or SIGTERM ended a run after it saved a checkpoint; exit code 130 or 143."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = EXIT_OF_SIGNAL + signal_number

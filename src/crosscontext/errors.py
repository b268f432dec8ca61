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

    told: bool | None = None
    """Among processes that train together: whether another one tells this already. None: it is not known."""


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


class ParityError(CrossContextError):
    """An export that was read back does not compute what the encoder computes; nothing is left of it."""


class ImageIndexError(CrossContextError, ValueError):
    """An index of images is missing, damaged, or made by another model or from another folder."""


class NonFiniteError(CrossContextError, ArithmeticError):
    """A loss, a gradient, weights or features became NaN or infinite; the last good checkpoint is kept."""

    def __init__(self, message: str, step: int | None = None):
        super().__init__(message)
        self.step = step
        """The step that did it, where it was one."""


class CollapseError(CrossContextError):
    """The features have collapsed: going on would be a waste. The checkpoint is saved."""

    exit_code = 3


class ShortOfMemoryError(CrossContextError):
    """A thread that prepares images found no memory; the last checkpoint is kept."""


class ResumeError(CrossContextError):
    """A run that was killed and resumed does not equal one that was not, or could not be compared."""


class ProcessError(CrossContextError):
    """Of the processes that train together one has died, hangs, or does not do what the others do."""

    def __init__(self, message: str, exit_code: int = 1):
        super().__init__(message)
        self.exit_code = exit_code


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

"""The command line: the first word says the verb; errors become lines and exit codes.

arguments → **cli** → verbs
"""

import os
import shutil
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from crosscontext.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_TERMINATED,
    CrossContextError,
    SettingsError,
    StoppedEarlyError,
)
from crosscontext.verbs import VERBS

_COLUMNS = 80  # of the texts in assets/help/, which tests/frozen.py writes
_EXIT_FAILURE = 1
_SPINS = "5000"
"""Turns for which GNU OpenMP's threads wait awake for the next loop. With its own 300 000 a training beside
another busy process is 40 % slower than with these few, which cost 2 % on an idle machine."""


class _Terminated(BaseException):
    """SIGTERM came while no training was there to save a checkpoint."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: what follows the program's name; those of the process by default.

    Returns:
        The exit code, as `errors.py` lists them.
    """
    signal.signal(signal.SIGTERM, _terminate)
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # is read when PyTorch is imported
    if "RANK" in os.environ:  # each of several processes would warn of what DDP may do without
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        if limit := os.environ.get("CROSSCONTEXT_MAX_PIXELS"):
            from crosscontext.datasets.decoding import limit_pixels

            limit_pixels(limit)
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        if _speaks_here():
            _complain("interrupted")
        return EXIT_INTERRUPTED
    except _Terminated:
        if _speaks_here():
            _complain("terminated")
        return EXIT_TERMINATED
    except BrokenPipeError:  # the reader has seen enough, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_FAILURE
    except CrossContextError as error:
        if not _is_told(error):
            _complain(str(error))
        return EXIT_OK if isinstance(error, StoppedEarlyError) and _would_be_restarted() else error.exit_code
    except Exception as error:
        _complain(
            f"{type(error).__name__}: {error}\nThis was not foreseen; CROSSCONTEXT_DEBUG=1 shows where."
        )
        return _EXIT_FAILURE
    return code


def _run(arguments: Sequence[str]) -> int:
    verb, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if verb in VERBS and (text := _written_help(verb, rest)) is not None:
        print(text, end="")
    elif verb in VERBS:
        VERBS[verb](rest)
    elif verb in ("--help", "-h", "help"):
        print(_overview())
    elif verb == "--version":
        from importlib.metadata import version

        print(f"crosscontext {version('crosscontext')}")
    else:
        from crosscontext.complaints import nearest

        there_are = f"there are {', '.join(VERBS)}{nearest(verb, list(VERBS)) or '.'}"
        raise SettingsError(
            f"Unknown verb '{verb}'; {there_are}" if verb else f"The verb is missing; {there_are}"
        )
    return EXIT_OK


def _written_help(verb: str, rest: Sequence[str]) -> str | None:
    """Read the help of a verb, if that alone is asked for: to compose it, all of PyTorch is imported."""
    if [*rest] not in (["--help"], ["-h"]) or shutil.get_terminal_size((80, 24)).columns < _COLUMNS:
        return None
    text = Path(__file__).with_name("assets") / "help" / f"{verb}.txt"
    return text.read_text() if text.is_file() else None


def _overview() -> str:
    verbs = "\n".join(f"  {name:14}{function.__doc__}" for name, function in VERBS.items())
    return (
        "usage: crosscontext VERB [OPTIONS]\n\n"
        "Turn a folder of unlabelled images into a visual backbone,\n"
        "and prove what it is worth.\n\n"
        f"{verbs}\n\n"
        "  crosscontext VERB --help    all options of a verb\n"
        "  crosscontext --version"
    )


def _is_told(error: CrossContextError) -> bool:
    """Whether another process of the same run tells it: before they have met, the first of each machine."""
    return not _speaks_here() if error.told is None else error.told


def _speaks_here() -> bool:
    """Whether this process tells what happens to all processes of its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _would_be_restarted() -> bool:
    """Whether torchrun starts again what ends with an exit code that is not 0, also if it was to stop."""
    return os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"


def _complain(message: str) -> None:
    if os.environ.get("CROSSCONTEXT_DEBUG"):
        traceback.print_exc()
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    if os.environ.get("RANK", "0") == "0":  # of processes that train together, one says it
        print(f"warning: {message}", file=sys.stderr, flush=True)


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

from crosscontext.cli import VERBS, main

SLOW_PACKAGES = ("torch", "torchvision", "timm", "numpy", "sklearn", "pydantic", "rich", "yaml")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "crosscontext", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80", **environment},
        check=False,
        timeout=60,
    )


def imported_by(arguments: Sequence[str]) -> set[str]:
    code = f"import sys; from crosscontext.cli import main; main({list(arguments)}); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_lists_the_verbs_within_80_columns() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(f"\n  {verb} " in done.stdout for verb in VERBS)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert done.stderr == ""


def test_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert run("--version").stdout == f"crosscontext {version('crosscontext')}\n"


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(argument: str) -> None:
    assert not imported_by([argument]) & set(SLOW_PACKAGES)


def test_unknown_verb_is_answered_with_the_nearest() -> None:
    done = run("pretrian")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: Unknown verb 'pretrian'")
    assert "did you mean 'pretrain'?" in done.stderr


def test_missing_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "verb is missing" in capsys.readouterr().err


def test_traceback_is_shown_only_when_debugging() -> None:
    assert "Traceback" not in run("fly").stderr
    assert "Traceback" in run("fly", CROSSCONTEXT_DEBUG="1").stderr


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m crosscontext --help | head -n 1 >/dev/null"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""


WAITS = """
import sys, time
from crosscontext import cli

def wait(arguments):
    print("waiting", flush=True)
    time.sleep(60)

cli.VERBS = {"wait": wait}
sys.exit(cli.main(["wait"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_verb_with_their_exit_codes(number: signal.Signals, code: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    _, complaint = process.communicate(timeout=20)
    assert process.returncode == code
    assert b"Traceback" not in complaint

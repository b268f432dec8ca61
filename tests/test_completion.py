import os
import pty
import select
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from crosscontext.cli import main
from crosscontext.completion import CompletionSettings, Shell, completion
from crosscontext.verbs import VERBS
from frozen import written_help
from spoken import install_diary

ASK = """
source "$1"; shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_crosscontext
printf '%s\\n' "${COMPREPLY[@]}"
"""


TELL_ZSH = """\
PS1='re''ady'; autoload -U compinit; compinit -D -u; source script
told() { print -r -- $BUFFER > answer; zle -I; print do''ne }; zle -N told; bindkey '^X' told
"""
"""Marks are written in two parts, for the terminal echoes what is typed."""


def fish(place: Path, line: str) -> list[str]:
    """What fish offers for a line, before it is sorted by use."""
    command = ["fish", "--no-config", "-c", "source script; complete -C $argv[1]", line]
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, check=True, timeout=60, env=_bare(place)
    )
    assert done.stderr == ""
    return done.stdout.split()


def zsh(place: Path, line: str) -> list[str]:
    """The word that zsh makes of the last one of a line at Tab, in a terminal."""
    keyboard, terminal = pty.openpty()
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"],
        cwd=place,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        env=_bare(place),
    )
    try:
        os.write(keyboard, TELL_ZSH.encode())
        _wait(keyboard, b"ready")
        os.write(keyboard, f"{line}\t\x18".encode())
        _wait(keyboard, b"done")
    finally:
        shell.kill()
        shell.wait()
        os.close(keyboard)
        os.close(terminal)
    return (place / "answer").read_text().split()[-1:]


def _bare(place: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(place), "TERM": "dumb"}


def _wait(terminal: int, mark: bytes) -> None:
    seen = b""
    while mark not in seen:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, f"the shell says nothing more after {seen!r}"
        seen += os.read(terminal, 4096)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shell") / "crosscontext.bash"
    path.write_text(completion(CompletionSettings(shell="bash")).text)
    return path


def bash(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words behind crosscontext; nothing but bash can be started."""
    command = ["/bin/bash", "--norc", "-c", ASK, "bash", str(script), "crosscontext", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env={"PATH": ""})
    assert done.stderr == ""
    return done.stdout.split()


def test_verbs_are_completed(script: Path) -> None:
    assert bash(script, "") == [*VERBS, "--help", "--version"]
    assert bash(script, "ver") == ["verify-resume"]


def test_options_of_the_verb_are_completed(script: Path) -> None:
    assert bash(script, "pretrain", "--method.mom") == ["--method.momentum"]
    assert bash(script, "pretrain", "--data", "shapes", "--no-rep") == ["--no-report"]
    assert bash(script, "search", "index", "--gal") == ["--gallery"]
    assert bash(script, "study", "--dr") == ["--dry-run"]
    assert bash(script, "compare", "--method") == []


def test_every_frozen_option_is_completed(script: Path) -> None:
    frozen = Path(__file__).with_name("frozen_options.txt").read_text().splitlines()
    for verb in VERBS:
        expected = {option for name, option in map(str.split, frozen) if name == verb}
        offered = set(bash(script, verb, "--"))
        assert {option for option in expected if not option.endswith("name")} <= offered
        flags = {"--help", "--print-config"} | ({"--json"} & {*written_help(verb).read_text().split()})
        assert flags <= offered


def test_registered_names_are_completed(script: Path) -> None:
    assert bash(script, "pretrain", "--method", "re") == ["ressl"]
    assert bash(script, "pretrain", "--data", "cifar") == ["cifar10", "cifar100"]
    assert bash(script, "pretrain", "--backbone", "resnet1") == ["resnet10", "resnet18", "resnet101"]
    assert bash(script, "pretrain", "--on-nonfinite", "r") == ["rollback"]
    assert bash(script, "evaluate", "run", "--tasks", "knn", "lin") == ["linear", "linear_sgd"]
    assert bash(script, "completion", "z") == ["zsh"]


def test_an_option_of_one_value_has_no_second_one(script: Path) -> None:
    assert bash(script, "pretrain", "--method", "cgh", "re") == []


def test_recipes_are_completed_where_they_may_stand(script: Path) -> None:
    assert bash(script, "pretrain", "folder_s") == ["folder_small"]
    assert bash(script, "study", "cifar10_m") == ["cifar10_methods"]
    assert bash(script, "evaluate", "cifar") == []
    assert "cifar10" in bash(script, "evaluate", "run", "cifar")


def test_loggers_of_other_packages_are_completed_unless_their_names_are_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_diary(tmp_path)
    with (tmp_path / "diary_of_runs-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("$(reboot) = diary_of_runs:Diary\n")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "script"
    text = completion(CompletionSettings(shell="bash")).text
    path.write_text(text)
    assert bash(path, "pretrain", "--loggers", "wandb", "d") == ["diary"]
    assert "reboot" not in text


@pytest.mark.parametrize(("shell", "ask"), [("zsh", zsh), ("fish", fish)])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ver", ["verify-resume"]),
        ("pretrain --method.mom", ["--method.momentum"]),
        ("pretrain --method re", ["ressl"]),
        ("pretrain --data shapes folder_s", []),
        ("pretrain folder_s", ["folder_small"]),
        ("pretrain --data note", ["notes.txt"]),
        ("note", []),
    ],
)
def test_other_shells_complete_alike(
    shell: Shell, ask: Callable[[Path, str], list[str]], line: str, expected: list[str], tmp_path: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here to complete words")
    (tmp_path / "script").write_text(completion(CompletionSettings(shell=shell)).text)
    (tmp_path / "notes.txt").touch()
    unchanged = line.split()[-1:] if shell == "zsh" else []
    assert ask(tmp_path, f"crosscontext {line}") == (expected or unchanged)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_well_formed(shell: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("--method.momentum", "folder_small", "tensorboard", "verify-resume"))
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here to read the script")
    path = tmp_path / "script"
    path.write_text(text)
    subprocess.run([shell, "-n", str(path)], check=True, timeout=60, env=os.environ)


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "expected 'bash', 'zsh' or 'fish'" in capsys.readouterr().err
    assert main(["completion"]) == 2
    assert "Missing SHELL" in capsys.readouterr().err

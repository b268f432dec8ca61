"""The pages as programs: Markdown → blocks → a folder of tiny images where they run, shortened.

What stands in a block counts by its language: `python` and `sh` are run in order, `diff` is applied, and a
block with a title is the file of that name. `text` shows what is printed. Names that pages use for what a
reader has (DIR, LABELLED_DIR, …) are made by `prepare`.

Trainings are shortened, and the pages do not say so: `crosscontext pretrain` and `evaluate` resolve the
page's own line with --print-config, so that every word of it must hold; then the same settings run as a
recipe whose length, batch and network are small (`shortened`). A run that is extended is extended to eight
steps, and formats that have no tiny networks are given the run of a ResNet-18 instead.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from torchvision import models

import checkpoints_of_others
import drawn
import drawn_masks
from conftest import paint
from crosscontext.cli import main
from crosscontext.errors import EXIT_OK, StoppedEarlyError

ROOT = Path(__file__).parents[1]

PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.name != "LOG.md"),  # which is history
]

NOT_RUN: Mapping[str, str] = {
    "make ": "makes environments and asks a package server",
    "python3.11 -m venv": "makes an environment",
    "pip install -c": "asks a package server",
    'pip install "crosscontext[': "asks a package server",
    "torchrun": "wants several GPUs or machines",
    "sbatch": "wants a cluster",
    "crosscontext submit": "wants a cluster; test_submission.py prints the job",
    "crosscontext pretrain --data 's3://": "wants a network",
    "crosscontext pretrain --data DIR --out runs/mine --devices": "test_several_processes.py does that",
    "crosscontext pretrain --data DIR --out runs/mine --loggers tensorboard wandb": "wants both; "
    "test_loggers.py has those that are there",
    "crosscontext pretrain cifar10": "wants a data set of 160 MB",
    "crosscontext evaluate runs/cifar10 cifar10": "wants a data set of 160 MB",
    "crosscontext study cifar10_methods": "wants a data set of 160 MB",
    "crosscontext evaluate runs/mine --references random start": "wants weights of another library",
    "crosscontext compare runs/cgh-0": "wants four runs; test_comparison.py has them",
    "crosscontext study mine.yaml --jobs 2": "starts processes; test_studies.py does that",
    "crosscontext verify-resume": "test_verification.py does that",
}
"""How lines begin that are only parsed (their verbs and options must exist), and why."""

WORDS = {"minutes=30": "steps=2, batch_size=8, settings={'threads': 1}"}
"""What blocks of Python that train say shorter here."""

_FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?[^\n]*\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_LANGUAGES = {"python", "sh", "yaml", "toml", "diff", "text"}
_TINY = {"name": "resnet", "depth": 10, "width": 0.125}
_SHORT = {
    "epochs": 1,
    "batch_size": 8,
    "crop": 32,
    "pixels": 2000,
    "iterations": 2,
    "images": 20,
    "n_init": 1,
}


class Block(NamedTuple):
    """One block of code on a page."""

    where: str
    language: str
    title: str
    text: str

    @property
    def lines(self) -> list[str]:
        """The commands of a shell block, each on one line."""
        joined = self.text.replace("\\\n", " ").splitlines()
        return [line for line in map(str.strip, joined) if line and not line.startswith("#")]


def blocks(page: Path) -> list[Block]:
    """Read all blocks of a page; its language must be one that is run, applied or meant as text."""
    text, found = page.read_text(encoding="utf-8"), []
    for match in _FENCE.finditer(text):
        where = f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
        assert match[1] in _LANGUAGES, f"{where}: a block of '{match[1]}' would not be tested"
        found.append(Block(where, match[1], match[2] or "", match[3]))
    return found


def reason_not_to_run(line: str) -> str | None:
    """Say why a command is parsed only; None where it is run."""
    return next((reason for start, reason in NOT_RUN.items() if line.startswith(start)), None)


def prepare(place: Path) -> None:
    """Make what a reader has: folders of images, with classes, masks, boxes and 16 bits, and a few files."""
    for number in range(64):
        name, hue = (("red", 0), ("blue", 2))[number % 2]
        for folder in ("DIR", "LABELLED_DIR"):
            paint(place / folder / name / f"{number:02}.jpg", number, hue)
    paint(place / "query.jpg", 99, 0)
    drawn_masks.write_set(place / "MASKS_DIR", train=6, test=3)
    drawn.draw_set(place / "VOC_DIR", train=8, test=2)
    (place / "SCANS_DIR").mkdir()
    for number in range(32):
        values = np.random.default_rng(number).integers(0, 4096, (40, 48), dtype=np.uint16)
        Image.fromarray(values).save(place / "SCANS_DIR" / f"{number:02}.tif")
    (place / "my.yaml").write_text("data: DIR\nout: runs/my\nepochs: 100\n")
    cells = "{a: {}, b: {method: moco}}\nvary: [method]\nseeds: [0]\nbudget: {steps: 4}"
    tasks = "[{data: LABELLED_DIR, tasks: [knn]}]"
    study = f"base: {{data: DIR}}\ncells: {cells}\nevaluate: {tasks}\n"
    (place / "mine.yaml").write_text(study)
    weights = {k: v for k, v in models.resnet18().state_dict().items() if not k.startswith("fc.")}
    torch.save(checkpoints_of_others.moco_v2(weights), place / "moco_v2.pth.tar")
    rows = "".join(f"{name}/{number:02}.jpg,{name}\n" for number, name in enumerate(("red", "blue") * 2))
    (place / "labels.csv").write_text("path,label\n" + rows)


def names(place: Path) -> dict[str, Any]:
    """Make what Python blocks take as given."""
    paths = sorted((place / "DIR").rglob("*.jpg"), key=lambda path: path.name)[:24]
    images = [Image.open(path) for path in paths]
    return {"picture": images[0], "images": images, "classes": [path.parent.name for path in paths]}


def run(block: Block, place: Path, scope: dict[str, Any]) -> None:
    """Do what a block says; the working directory is the place.

    Args:
        block: of any language.
        place: see `prepare`.
        scope: of the Python blocks of a page.
    """
    if block.language == "diff":
        _bash("git apply --recount -", place, block.where, block.text)
    elif block.title:
        file = place / block.title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text)
        for line in block.lines if block.language == "sh" else ():
            _parse(line, block.where)
    elif block.language == "python":
        text = block.text
        for word, shorter in WORDS.items():
            text = text.replace(word, shorter)
        exec(compile(text, block.where, "exec"), scope)
    elif block.language == "sh":
        for line in block.lines:
            if reason_not_to_run(line) is not None:
                _parse(line, block.where)
            elif line.startswith("pip install --no-deps ./"):
                _install(place / line.split("/")[-1], place / "src")
            elif line.startswith("crosscontext "):
                _command(line, place, block.where)
            else:
                _bash(line, place, block.where)


def _install(package: Path, target: Path) -> None:
    """Do what pip would do of a package of modules: copy them, and write its entry points down."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    for module in package.glob("*.py"):
        shutil.copy(module, target)
    about = target / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in points.items()) for group, points in groups]
    (about / "entry_points.txt").write_text("\n".join(lines))


def _words(line: str) -> list[str]:
    """Take a command apart; where its output goes is the shell's affair."""
    return list(takewhile(lambda word: word != ">", shlex.split(line, comments=True)))


def _parse(line: str, where: str) -> None:
    """Check verbs and options of a command that is not run."""
    words = _words(line)
    if "crosscontext" in words:
        arguments = words[words.index("crosscontext") + 1 :]
        _call([*arguments, "--print-config"], f"{where}: {line}")


def _command(line: str, place: Path, where: str) -> None:
    line = re.sub(r"(--resume --extend) --\w+ \d+", r"\1 --steps 8", line)
    arguments = _words(line)[1:]
    told = f"{where}: {line}"
    if arguments[0] == "export" and {"timm", "torchvision", "hf", "detectron2"} & {*arguments}:
        arguments[1] = "runs/resnet18"
    if (place / "src").is_dir():  # the page changes the package itself
        call: Callable[[Sequence[str], str], str] = lambda given, told: _bash(  # noqa: E731
            shlex.join([sys.executable, "-m", "crosscontext", *given]), place, told
        )
    else:
        call = _call
    is_short = {"--resume", "--help", "--print-config"} & {*arguments}
    if arguments[0] in ("pretrain", "evaluate") and not is_short:
        settings = yaml.safe_load(call([*arguments, "--print-config"], told))
        recipe = place / "shortened.yaml"
        recipe.write_text(yaml.safe_dump(shortened(arguments[0], settings)))
        run_folder = [settings["run"]] if arguments[0] == "evaluate" else []
        flags = [flag for flag in ("--json",) if flag in arguments]
        arguments = [arguments[0], *run_folder, str(recipe), *flags]
    call(arguments, told)


def shortened(verb: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Make settings of a training or an evaluation ones that take a second or two."""
    if verb == "evaluate":
        return {**settings, "tasks": [_short_task(task) for task in settings["tasks"]], "threads": 1}
    weights = settings["backbone"].get("weights")
    lengths: dict[str, Any] = dict.fromkeys(("epochs", "images", "minutes"))
    return {
        **settings,
        **lengths,
        **{"steps": 4, "batch_size": 16, "image_size": 32, "earlier_sizes": []},
        **{"threads": 1, "workers": 1, "report": False},
        "backbone": {**_TINY, "weights": weights},
    }


def _short_task(task: dict[str, Any]) -> dict[str, Any]:
    short = {key: _SHORT.get(key, value) for key, value in task.items()}
    return {key: _short_task(value) if isinstance(value, dict) else value for key, value in short.items()}


def _call(arguments: Sequence[str], told: str) -> str:
    """Run the command line in this process, and return what it printed."""
    printed, complaints = StringIO(), StringIO()
    with redirect_stdout(printed), redirect_stderr(complaints):
        code = main(arguments)
    assert code in (EXIT_OK, StoppedEarlyError.exit_code), f"{told}\n{complaints.getvalue()}"
    return printed.getvalue()


def _bash(line: str, place: Path, told: str, given: str = "") -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if (place / "src").is_dir():
        environment["PYTHONPATH"] = str(place / "src")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line],
        cwd=place,
        env=environment | {"PATH": path},
        input=given,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{told}\n{done.stdout}{done.stderr}"
    return done.stdout

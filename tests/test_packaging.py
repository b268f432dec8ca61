"""What a user gets: the wheel in an environment of its own, with core dependencies and with each extra."""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = sorted(PROJECT["optional-dependencies"].keys() - {"bench", "dev"})
USE = {
    "detect": "from crosscontext.average_precision import *; import pycocotools.cocoeval",
    "onnx": "from crosscontext.formats.onnx import *; import onnx, onnxruntime, onnxscript",
    "docs": "import zensical",  # builds the pages; nothing of the package needs it
    "slurm": "from crosscontext.submission import *; import submitit",
    "parquet": "from crosscontext.datasets.parquet import _pyarrow; _pyarrow()",
    "remote": "from crosscontext.datasets.sources import *; import fsspec",
    "usearch": "from crosscontext.vector_search import *; import usearch.index",
} | {
    name: f"from crosscontext.loggers import find_loggers; find_loggers(['{name}']); import {name}"
    for name in ("mlflow", "tensorboard", "trackio", "wandb")
}


class Place:
    """A virtual environment."""

    def __init__(self, path: Path):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(path)], check=True, timeout=120)
        self._bin = path / "bin"
        (self.packages,) = (path / "lib").glob("python*/site-packages")

    def install(self, *what: str) -> None:
        command = [sys.executable, "-m", "pip", "--python", str(self._bin / "python"), "install", "--quiet"]
        subprocess.run([*command, *what], check=True, timeout=900)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return subprocess.run(
            [str(self._bin / program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=self.packages,  # not the checkout, whose recipes would be found too
            env=environment | {"OMP_NUM_THREADS": "1"},
        )


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("built")
    place = Place(folder / "builder")
    place.install("hatchling")
    done = subprocess.run(
        [str(folder / "builder" / "bin" / "python"), "-m", "hatchling", "build", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def core(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The wheel with its core dependencies, and nothing else."""
    place = Place(tmp_path_factory.mktemp("core"))
    place.install("--constraint", str(ROOT / "constraints.txt"), str(wheel))
    return place


def test_the_citation_is_complete_and_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["title"] == PROJECT["name"]
    assert {"message", "authors"} <= citation.keys()
    (paper,) = citation["references"]
    assert paper["url"] == "https://arxiv.org/abs/2308.13392"
    assert [author["family-names"] for author in paper["authors"]] == ["Gao", "Feng", "Patras"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.slow
def test_the_wheel_holds_all_modules_assets_recipes_and_studies(wheel: Path) -> None:
    names = names_in(wheel)
    source = ROOT / "src"
    files = [
        path for path in (source / "crosscontext").rglob("*") if path.is_file() and path.suffix != ".pyc"
    ]
    assert {str(path.relative_to(source)) for path in files} <= names
    for verb in ("pretrain", "evaluate"):
        recipes = {f"crosscontext/recipes/{verb}/{path.name}" for path in ROOT.glob(f"recipes/{verb}/*.yaml")}
        assert recipes
        assert recipes <= names
    assert {f"crosscontext/recipes/study/{path.name}" for path in ROOT.glob("studies/*.yaml")} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "test" in name.split("/")[0]]


@pytest.mark.slow
def test_the_sdist_makes_the_same_wheel(built: Path, wheel: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    command = [str(built / "builder" / "bin" / "python"), "-m", "hatchling", "build", "-t", "wheel"]
    subprocess.run([*command, "-d", str(tmp_path)], cwd=unpacked, check=True, timeout=120)
    assert names_in(tmp_path / wheel.name) == names_in(wheel)


@pytest.mark.slow
def test_the_wheel_trains_and_loads_with_core_dependencies_alone(core: Place, tmp_path: Path) -> None:
    assert "pretrain" in core.run("crosscontext", "--help").stdout
    assert core.run("crosscontext", "--version").stdout == f"crosscontext {PROJECT['version']}\n"
    completion = core.run("crosscontext", "completion", "bash").stdout
    assert all(name in completion for name in ("folder_small", "cifar10_methods"))
    shapes = ["--data", "shapes", "--data.num-train", "64", "--data.num-test", "32"]
    small = ["--steps", "2", "--batch-size", "16", "--backbone", "resnet10", "--backbone.width", "0.125"]
    trained = core.run("crosscontext", "pretrain", "--out", str(tmp_path / "run"), *shapes, *small)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    assert not (tmp_path / "run" / "loggers").exists()
    loading = f"import crosscontext; print(crosscontext.load({str(tmp_path / 'run')!r}).width)"
    assert core.run("python", "-c", loading).stdout == "64\n"


@pytest.mark.slow
def test_what_needs_an_extra_says_how_to_get_it(core: Place, tmp_path: Path) -> None:
    shard = tmp_path / "a.parquet"
    shard.write_bytes(b"PAR1")
    for extra, options in (
        ("parquet", ("--data", str(shard))),
        ("wandb", ("--data", "shapes", "--loggers", "wandb")),
    ):
        done = core.run("crosscontext", "pretrain", "--out", str(tmp_path / "run"), *options)
        assert done.returncode != 0
        assert f'pip install "crosscontext[{extra}]"' in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_alone_brings_what_it_is_for(extra: str, core: Place, wheel: Path, tmp_path: Path) -> None:
    """A layer on the core environment; without constraints, as a user would install it."""
    layer = Place(tmp_path / "layer")
    (layer.packages / "core.pth").write_text(str(core.packages))
    if extra != "remote":  # PyTorch needs fsspec too
        assert core.run("python", "-c", USE[extra]).returncode != 0
    layer.install(f"{wheel}[{extra}]")
    done = layer.run("python", "-c", USE[extra])
    assert done.returncode == 0, done.stderr

"""Whatever is declared is pinned for CI, and its licence is known."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def plain(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()


DECLARED = sorted(
    {plain(line) for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines}
    - {"crosscontext"}
)
PINNED = {
    plain(line): line.partition("==")[2].strip()
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
}
LICENCES = {
    plain(row[1].strip()): row[2].strip()
    for row in (line.split("|") for line in (ROOT / "docs" / "licences.md").read_text().splitlines())
    if len(row) == 5 and not row[1].startswith(("-", " package"))
}


@pytest.mark.parametrize("package", DECLARED)
def test_what_is_declared_is_pinned_and_its_licence_listed(package: str) -> None:
    assert re.fullmatch(r"[0-9][0-9A-Za-z.]*", PINNED[package])
    assert LICENCES[package]


def test_every_pin_is_exact_and_its_licence_listed() -> None:
    assert [package for package, version in PINNED.items() if not version] == []
    assert sorted(PINNED) == sorted(LICENCES)


@pytest.mark.parametrize("package", DECLARED)
def test_the_listed_licence_is_the_one_that_the_package_states(package: str) -> None:
    try:
        about = metadata(package)
    except PackageNotFoundError:
        pytest.skip("is not installed here")
    fields = ("License-Expression", "License", "Classifier")
    stated = " ".join(str(text)[:60] for field in fields for text in about.get_all(field, []))
    words = [
        word for word in re.split(r"[^A-Za-z]+", LICENCES[package]) if word not in ("", "OR", "AND", "WITH")
    ]
    assert any(word.lower() in stated.lower() for word in words)


def test_nothing_that_binds_its_users_is_declared() -> None:
    assert [package for package in DECLARED if "GPL" in LICENCES[package]] == []

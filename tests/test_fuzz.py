"""Damaged bytes at every door: only errors of the package come out, and nothing is written or started."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosscontext.errors import SettingsError
from crosscontext.evaluation import EvaluateSettings
from crosscontext.fields import places
from crosscontext.layers import Layer, resolve
from crosscontext.pretraining import PretrainSettings
from crosscontext.settings import Settings
from crosscontext.study_plan import StudySettings
from doors import Door, doors
from fuzz import SLOW, WATCH, FindingError, fuzz, knock
from mutation import mutated, with_lines

INPUTS = 120
DOORS = (
    "settings", "arguments", "images", "tar", "tar index", "parquet", "list", "idx", "idx, compressed", "voc",
    "coco", "pytorch", "checkpoint", "safetensors", "encoder",
)  # fmt: skip
NOT_REFUSED = (
    "tar index",  # is made anew
    "checkpoint",  # is large, so that most damages are to values; their checksums are compared elsewhere
)
KINDS: list[type[Settings]] = [PretrainSettings, EvaluateSettings, StudySettings]
KEYS = sorted({key for kind in KINDS for place in places(kind) for key in place.path})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def laid_out(place: Path) -> Iterator[dict[str, Door]]:
    before = Path.cwd()
    os.chdir(place)
    yield doors(place)
    os.chdir(before)


def test_the_doors_are_all_of_them(laid_out: dict[str, Door]) -> None:
    assert tuple(laid_out) == DOORS
    assert sum(INPUTS // SLOW.get(name, 1) for name in DOORS) >= 1000


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@pytest.mark.parametrize("name", DOORS)
def test_a_damaged_input_is_refused_in_words(laid_out: dict[str, Door], place: Path, name: str) -> None:
    inputs = INPUTS // SLOW.get(name, 1)
    outcome = fuzz(name, laid_out[name], place, inputs, seed=1, guided=False)
    refused = sum(outcome.refused.values())
    assert refused + outcome.accepted == inputs
    assert refused >= inputs // 10 or name in NOT_REFUSED


def test_what_a_door_must_not_do_is_found(place: Path) -> None:
    def write(file: Path) -> None:
        (place / "written").write_text("x")

    def connect(file: Path) -> None:
        socket.create_connection(("127.0.0.1", 9), timeout=0.01)

    def crash(file: Path) -> None:
        raise ZeroDivisionError("oh")

    for enter, cause in (
        (write, "for writing"),
        (connect, "Connection|socket"),
        (crash, "ZeroDivisionError: oh"),
    ):
        with pytest.raises(FindingError, match=cause):
            knock(Door([b"x"], enter), place, b"x")
    with WATCH.over(place / "index"):
        (place / "index").mkdir(exist_ok=True)
        (place / "index" / "kept").write_text("x")
    assert WATCH.seen == []


def test_mutations_are_those_of_their_seed_and_rarely_the_example_itself() -> None:
    first, again = ([mutated([b"hello world"], Random(3)) for _ in range(1)] for _ in range(2))
    assert first == again
    random = Random(0)
    assert sum(mutated([b"hello world"], random) == b"hello world" for _ in range(500)) < 50


def test_coverage_tells_the_branches_that_ran() -> None:
    def lines(seconds: float) -> set[tuple[str, int]]:
        from crosscontext.errors import InterruptedRunError

        return with_lines(lambda: InterruptedRunError("x", 2) if seconds else None, "crosscontext")[1]

    assert lines(0) < lines(1)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["auto", "shapes", "cgh", "timm", "~x/y", "s3://b/a.tar", "x" * 300, "a\0b"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_any_values_are_settings_or_a_settings_error(kind: type[Settings], values: dict[str, object]) -> None:
    with suppress(SettingsError):
        resolve(kind, [Layer("a test", values)])

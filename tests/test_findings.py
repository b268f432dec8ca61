from typing import Any

import pytest

from crosscontext.environment import Environment
from crosscontext.findings import FEW, Finding, about_images, about_machine, about_proposal, by_weight
from crosscontext.proposal import SMALL, Proposal
from crosscontext.scanning import Scan, Unreadable
from crosscontext.speed import Speed


def scan_of(images: int, **changes: Any) -> Scan:
    """A flawless set."""
    names = ("tiny", "elongated", "blank", "animated", "deep", "dark", "identical", "alike", "unreadable")
    nothing: dict[str, Any] = dict.fromkeys(names, ())
    sizes = dict.fromkeys(("short_side", "long_side", "aspect"))
    usual = {"images": images, "scanned": images, "formats": {}, "modes": {}, "classes": {}}
    return Scan(**{**usual, **nothing, **sizes, **changes})


def environment_of(**changes: Any) -> Environment:
    """Two cores and room."""
    room = {"memory_gigabytes": 8, "free_gigabytes": 6, "disk_gigabytes": 50}
    machine = {"machine": {"threads": 2, "device": "cpu"}, "usable_cores": 2, "instructions": "AVX2"}
    return Environment(**{**room, **machine, "gpus": (), "variables": {}, "extras": (), **changes})


def names(number: int) -> tuple[str, ...]:
    return tuple(f"{i}.jpg" for i in range(number))


def broken(number: int) -> tuple[Unreadable, ...]:
    return tuple(Unreadable(path=name, cause="the file is empty") for name in names(number))


def found(scan: Scan) -> dict[str, Finding]:
    return {finding.name: finding for finding in about_images(scan, 32)}


def test_nothing_is_said_of_a_large_flawless_set() -> None:
    assert found(scan_of(SMALL)) == {}


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (1, ("too_few", "stop")),
        (2, ("too_few", "warning")),
        (FEW - 1, ("too_few", "warning")),
        (FEW, ("small", "note")),
        (SMALL - 1, ("small", "note")),
    ],
)
def test_a_set_that_is_too_small_is_told_with_the_option_that_helps(
    images: int, expected: tuple[str, str]
) -> None:
    (finding,) = found(scan_of(images)).values()
    assert (finding.name, finding.severity) == expected
    assert images == 1 or "--backbone.weights FILE" in finding.remedy


def test_copies_and_unreadable_images_do_not_count() -> None:
    copies = (tuple(f"{i}" for i in range(1001)),)
    assert "too_few" in found(scan_of(FEW + 1000, identical=copies, unreadable=broken(1)))
    assert "too_few" not in found(scan_of(FEW + 1001, identical=copies, unreadable=broken(1)))


@pytest.mark.parametrize(("number", "severity"), [(1, "warning"), (5, "warning"), (6, "stop"), (100, "stop")])
def test_more_than_one_in_twenty_unreadable_images_stop_a_training(number: int, severity: str) -> None:
    finding = found(scan_of(100, unreadable=broken(number)))["unreadable"]
    assert (finding.severity, finding.count) == (severity, number)
    assert finding.examples[0] == "0.jpg: the file is empty"
    assert len(finding.examples) == min(number, 5)


@pytest.mark.parametrize("kind", ["identical", "alike"])
@pytest.mark.parametrize(("number", "severity"), [(2000, "note"), (2001, "warning")])
def test_many_copies_weigh_more_than_a_few(kind: str, number: int, severity: str) -> None:
    finding = found(scan_of(20_000, **{kind: (names(number + 1),)}))[kind]
    assert (finding.severity, finding.count) == (severity, number)
    assert finding.examples == ("0.jpg = 1.jpg = 2.jpg …",)


@pytest.mark.parametrize("kind", ["tiny", "blank"])
@pytest.mark.parametrize(("number", "severity"), [(200, "note"), (201, "warning")])
def test_odd_images_weigh_by_their_share(kind: str, number: int, severity: str) -> None:
    finding = found(scan_of(20_000, **{kind: names(number)}))[kind]
    assert (finding.severity, finding.count) == (severity, number)


@pytest.mark.parametrize(("number", "told"), [(10_000, "Remove them"), (10_001, "Nothing, if all")])
def test_small_images_are_no_fault_of_a_set_that_has_hardly_others(number: int, told: str) -> None:
    finding = found(scan_of(20_000, tiny=names(number)))["tiny"]
    assert finding.remedy.startswith(told)
    assert finding.severity == ("note" if told.startswith("Nothing") else "warning")


@pytest.mark.parametrize(
    ("classes", "told"),
    [({"a": 10, "b": 99}, False), ({"a": 10, "b": 100}, True), ({"a": 4, "b": 5}, True), ({}, False)],
)
def test_unequal_and_rare_classes_are_told(classes: dict[str, int], told: bool) -> None:
    findings = found(scan_of(20_000, classes=classes))
    assert ("unbalanced" in findings) is told
    if told:
        assert findings["unbalanced"].examples[0].startswith("a: ")


def test_a_sample_is_told_and_the_set_is_judged_by_its_size() -> None:
    findings = found(scan_of(SMALL, scanned=100))
    assert list(findings) == ["sampled"]
    assert "100 of 20000 images" in findings["sampled"].what


@pytest.mark.parametrize(
    ("changes", "name", "severity"),
    [
        ({"machine": {"threads": 4, "device": "cpu"}}, "threads", "warning"),
        ({"machine": {"threads": 1, "device": "cpu"}}, "threads", "note"),
        ({"free_gigabytes": 1.0}, "memory", "warning"),
        ({"disk_gigabytes": 1.0}, "disk", "warning"),
    ],
)
def test_what_a_machine_lacks_is_told(changes: dict[str, Any], name: str, severity: str) -> None:
    assert list(about_machine(environment_of())) == []
    (finding,) = about_machine(environment_of(**changes))
    assert (finding.name, finding.severity) == (name, severity)


@pytest.mark.parametrize(
    ("proposed", "measured", "name"),
    [
        ({}, {}, None),
        ({"recipe_hours": 100.0}, {}, "slow"),
        ({}, {"load_images_per_second": 40.0}, "loading"),
        ({"gigabytes": 7.0}, {}, "out_of_memory"),
    ],
)
def test_what_stands_against_a_proposal_is_told(
    proposed: dict[str, float], measured: dict[str, float], name: str | None
) -> None:
    usual: dict[str, Any] = {"hours": 5.0, "recipe_hours": 5.0, "gigabytes": 2.0, "passes": 400.0}
    proposal = Proposal(
        **{"recipe": "folder_small", "command": "", "choices": (), "image_size": 64, **usual, **proposed}
    )
    rates: dict[str, Any] = {"step_images_per_second": 100.0, "load_images_per_second": 500.0}
    speed = Speed(**{"batch": 8, "fixed_bytes": 1, "bytes_an_image": 1, **rates, **measured})
    findings = list(about_proposal(proposal, speed, environment_of(), 24.0))
    assert [finding.name for finding in findings] == ([] if name is None else [name])


def test_the_worst_comes_first() -> None:
    scan = scan_of(40_000, unreadable=broken(3000), tiny=names(1), blank=names(401))
    severities = [finding.severity for finding in by_weight(about_images(scan, 32))]
    assert severities == ["stop", "warning", "note"]

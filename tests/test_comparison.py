from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import JsonValue, ValidationError
from scipy import stats

from crosscontext.comparison import CompareSettings, compare, difference, estimate, line_up
from crosscontext.contenders import BySeed, Contender, Line
from crosscontext.errors import SettingsError
from crosscontext.results import Score, append_results, pack, unpack
from handmade import PROTOCOL, score

CGH = {0: 0.532, 1: 0.524, 2: 0.541}
MOCO = {0: 0.521, 1: 0.531, 2: 0.519}
OTHER_SIZE: dict[str, JsonValue] = {**PROTOCOL, "preprocessing": {"image_size": 24}}
USUAL_SIZE: dict[str, JsonValue] = {**PROTOCOL, "preprocessing": {"image_size": 32}}


def by_seed(values: Mapping[int, float]) -> BySeed:
    return {seed: score(value) for seed, value in values.items()}


def line_of(found: Score) -> Line:
    return Line(found.task, found.metric, found.protocol_digest)


def method(label: str, *scores: Score) -> Contender:
    """A method with one seed."""
    return Contender(label, {line_of(found): {0: found} for found in scores}, is_reference=False)


def reference(label: str, *scores: Score) -> Contender:
    return Contender(label, {line_of(found): {None: found} for found in scores}, is_reference=True)


def resampled(value: float, spread: float, generator: np.random.Generator) -> Score:
    return score(value, replicates=pack(generator.normal(value, spread, 1000).astype(np.float32)))


@pytest.mark.parametrize("values", [[0.5, 0.6], [0.532, 0.524, 0.541], list(np.linspace(0.1, 0.9, 12))])
def test_the_interval_over_seeds_is_that_of_student(values: Sequence[float]) -> None:
    found = estimate([score(value) for value in values])
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), low, high), rel=1e-12)
    assert (found.over, found.seeds) == ("seeds", len(values))


def test_one_seed_keeps_its_interval_over_the_images() -> None:
    found = estimate([score(0.5, low=0.4, high=0.7)])
    assert (found.value, found.low, found.high, found.over, found.seeds) == (0.5, 0.4, 0.7, "images", 1)


def test_differences_over_shared_seeds_are_paired() -> None:
    found = difference(by_seed(MOCO), by_seed(CGH))
    test = stats.ttest_rel(list(MOCO.values()), list(CGH.values()))
    expected = test.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.value == pytest.approx(np.mean(list(MOCO.values())) - np.mean(list(CGH.values())))
    assert (found.over, found.seeds) == ("seeds", 3)


def test_only_the_shared_seeds_make_the_difference_whatever_their_order() -> None:
    found = difference(by_seed({7: 0.9, 2: 0.519, 1: 0.531, 0: 0.521}), by_seed({**CGH, 5: 0.1}))
    assert found == difference(by_seed(MOCO), by_seed(CGH))


def test_a_reference_stands_beside_every_seed() -> None:
    found = difference(by_seed(CGH), {None: score(0.45)})
    expected = stats.ttest_1samp(np.array(list(CGH.values())) - 0.45, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    opposite = difference({None: score(0.45)}, by_seed(CGH))
    assert opposite.value == pytest.approx(-found.value)


def test_single_seeds_are_paired_by_the_resamples_of_the_images() -> None:
    generator = np.random.default_rng(0)
    shared = generator.normal(0, 0.02, 1000)  # the luck of the images, which both have
    one, other = (
        score(value, replicates=pack((value + shared + generator.normal(0, 0.001, 1000)).astype(np.float32)))
        for value in (0.53, 0.52)
    )
    found = difference({0: one}, {1: other})
    assert found.value == pytest.approx(0.01)
    assert found.over == "images"
    assert found.low is not None
    assert found.high is not None
    assert 0.005 < found.low < 0.01 < found.high < 0.015  # each alone spreads over 0.08


def test_unshared_seeds_are_averaged_before_the_images_pair_them() -> None:
    generator = np.random.default_rng(1)
    one, two, three = (resampled(value, 0.02, generator) for value in (0.5, 0.52, 0.4))
    found = difference({0: one, 1: two}, {1: three})
    first, second, third = (unpack(found.replicates).astype(np.float64) for found in (one, two, three))
    low, high = np.quantile((first + second) / 2 - third, [0.025, 0.975])
    assert found.value == pytest.approx(0.11)
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize("change", [{"n": 99}, {"seed": 1}])
def test_scores_resampled_differently_have_a_difference_without_interval(change: dict[str, int]) -> None:
    found = difference({0: score(0.6)}, {0: score(0.5).model_copy(update=change)})
    assert found.value == pytest.approx(0.1)
    assert found.low is None
    assert found.high is None


def test_rows_have_a_cell_a_contender_and_differences_from_the_first_method() -> None:
    table = line_up([method("a", score(0.5)), method("b", score(0.6)), reference("pixels", score(0.3))])
    (row,) = table.rows
    assert (row.task, row.metric, row.conditions, row.unit) == ("knn", "top1_k20", "", "share")
    assert {label: cell.value for label, cell in row.cells.items()} == {"a": 0.5, "b": 0.6, "pixels": 0.3}
    assert {label: cell.value for label, cell in row.differences.items()} == pytest.approx(
        {"b": 0.1, "pixels": -0.2}
    )
    assert (table.labels, table.baseline, table.notes) == (("a", "b", "pixels"), "a", ())


def test_any_contender_may_be_the_baseline() -> None:
    contenders = [method("a", score(0.5)), method("b", score(0.6)), reference("pixels", score(0.3))]
    (row,) = line_up(contenders, "pixels").rows
    assert {label: cell.value for label, cell in row.differences.items()} == pytest.approx(
        {"a": 0.2, "b": 0.3}
    )
    with pytest.raises(SettingsError, match=r"no baseline 'pixel'; there are a, b, pixels.*mean 'pixels'"):
        line_up(contenders, "pixel")


def test_scores_of_other_protocols_never_share_a_row_and_the_field_is_named() -> None:
    table = line_up(
        [
            method("a", score(0.5, USUAL_SIZE)),
            method("b", score(0.6, USUAL_SIZE)),
            method("c", score(0.7, OTHER_SIZE)),
        ]
    )
    (row,) = table.rows
    assert set(row.cells) == set(table.labels) == {"a", "b"}
    assert table.notes == (
        "knn top1_k20: the protocols of a and c differ in preprocessing.image_size (32, 24)",
    )


def test_the_default_baseline_is_a_method_of_the_table() -> None:
    alone = method("a", score(0.5, OTHER_SIZE))
    table = line_up([alone, method("b", score(0.5)), method("c", score(0.6))])
    assert (table.labels, table.baseline) == (("b", "c"), "b")


def test_without_a_common_protocol_the_refusal_names_field_and_values() -> None:
    methods = [method("a", score(0.5, USUAL_SIZE)), method("b", score(0.6, OTHER_SIZE))]
    with pytest.raises(SettingsError, match=r"a and b differ in preprocessing\.image_size \(32, 24\)"):
        line_up([*methods, reference("pixels", score(0.3, USUAL_SIZE))])


def test_of_several_protocols_the_nearest_one_explains_the_refusal() -> None:
    far: dict[str, JsonValue] = {"task": {"name": "knn"}, "seed": 1}
    methods = [method("a", score(0.5, USUAL_SIZE)), method("b", score(0.6, far), score(0.6, OTHER_SIZE))]
    with pytest.raises(SettingsError, match=r"differ in preprocessing\.image_size \(32, 24\)$"):
        line_up(methods)


def test_two_shared_protocols_of_a_metric_are_two_rows_told_apart() -> None:
    both = score(0.5, USUAL_SIZE), score(0.4, OTHER_SIZE)
    table = line_up([method("a", *both), method("b", *both)])
    assert [(row.conditions, row.cells["a"].value) for row in table.rows] == [
        ("preprocessing.image_size 32", 0.5),
        ("preprocessing.image_size 24", 0.4),
    ]


def test_a_metric_of_one_method_among_several_is_left_out_and_said_so() -> None:
    alone = score(0.9, task="semi", metric="top1")
    table = line_up([method("a", score(0.5), alone), method("b", score(0.6))])
    assert [row.task for row in table.rows] == ["knn"]
    assert table.notes == ("semi top1: only a has it",)


def test_a_single_method_shows_all_it_has_beside_its_references() -> None:
    table = line_up(
        [
            method("a", score(0.5, USUAL_SIZE), score(0.4, OTHER_SIZE)),
            reference("pixels", score(0.3, USUAL_SIZE)),
        ]
    )
    assert [set(row.cells) for row in table.rows] == [{"a", "pixels"}, {"a"}]
    assert table.rows[0].differences["pixels"].value == pytest.approx(-0.2)


def run_folder(path: Path, seed: int, method_name: str, *scores: Score) -> Path:
    path.mkdir()
    (path / "config.yaml").write_text(f"seed: {seed}\nout: {path}\nmethod: {{name: {method_name}}}\n")
    append_results(path / "results.jsonl", scores)
    return path


def test_runs_are_compared_from_their_folders(tmp_path: Path) -> None:
    runs = [
        run_folder(tmp_path / f"{name}-{seed}", seed, name, score(value), score(0.3, model="pixels"))
        for name, values in (("cgh", CGH), ("moco", MOCO))
        for seed, value in values.items()
    ]
    table = compare(CompareSettings(runs=tuple(runs)))
    (row,) = table.rows
    assert table.labels == ("cgh", "moco", "pixels")
    assert row.cells["cgh"] == estimate([score(value) for value in CGH.values()])
    assert row.differences["moco"] == difference(by_seed(MOCO), by_seed(CGH))
    assert row.cells["pixels"].value == 0.3


def test_a_run_stands_for_its_method_as_the_baseline(tmp_path: Path) -> None:
    runs = [
        run_folder(tmp_path / name, seed, name.split("-")[0], score(0.5))
        for name, seed in (("cgh-0", 0), ("moco-0", 0), ("moco-1", 1))
    ]
    table = compare(CompareSettings(runs=tuple(runs), baseline=f"{tmp_path}/moco-1/"))
    assert table.baseline == "moco"
    with pytest.raises(SettingsError, match=r"no baseline '.*moco-2'; there are cgh, moco"):
        compare(CompareSettings(runs=tuple(runs), baseline=f"{tmp_path}/moco-2"))


def test_everything_left_out_is_told(tmp_path: Path) -> None:
    runs = [
        run_folder(tmp_path / "a", 0, "cgh", score(0.5), score(0.9, metric="top1_k1")),
        run_folder(tmp_path / "b", 0, "moco", score(0.6)),
    ]
    with (tmp_path / "b" / "results.jsonl").open("a") as file:
        file.write('{"task": "kn')
    said: list[str] = []
    compare(CompareSettings(runs=tuple(runs)), said.append)
    assert said == [
        f"{tmp_path / 'b' / 'results.jsonl'}: torn lines are left out: 2",
        "knn top1_k1: only cgh has it",
    ]


def test_runs_given_twice_and_labels_of_another_number_are_refused() -> None:
    with pytest.raises(ValidationError, match="a is given twice"):
        CompareSettings(runs=(Path("a"), Path("b"), Path("a")))
    with pytest.raises(ValidationError, match="2 runs and 1 labels"):
        CompareSettings(runs=(Path("a"), Path("b")), labels=("x",))

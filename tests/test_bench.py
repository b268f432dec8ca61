import json
import os
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench import photographs, scaling, step, time_to_accuracy, views
from bench.__main__ import EXIT_FAILED, run
from bench.curves import Clock, Judge, Point, passing_time, read_curve
from bench.harness import (
    RESULTS,
    CannotMeasureError,
    ChildFailedError,
    Row,
    alternate,
    clocked,
    compare,
    describe,
    fresh,
    require,
    timing_of,
    write_results,
)
from bench.images import cifar10, small_images, small_set
from bench.images import photographs as photograph_files
from bench.table import README, TABLE_END, TABLE_START, significant, write_table
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Labels
from crosscontext.datasets.named import DATA_DIR_VARIABLE
from crosscontext.errors import DataError
from crosscontext.pretraining import PretrainSettings

MACHINE = {"cores": 2, "processor": "a processor", "threads": 2, "torch": "2.14.1", "busy": 0.02}


def two_classes(count: int) -> ArrayDataset:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 120, (count, 16, 16, 3), dtype=np.uint8)
    classes = np.arange(count) % 2
    pixels[np.arange(count), :, :, classes] += 120
    return ArrayDataset(pixels, [f"{number}" for number in range(count)], Labels(("even", "odd"), classes))


def test_contenders_take_turns_and_the_warmup_does_not_count() -> None:
    calls: list[str] = []

    def contender(name: str, seconds: list[float]) -> float:
        calls.append(name)
        return seconds.pop(0)

    first, second = [100.0, 1.0, 3.0, 2.0], [100.0, 5.0, 5.0, 5.0]
    timings = alternate(
        {"a": lambda: contender("a", first), "b": lambda: contender("b", second)}, rounds=3, warmup=1
    )
    assert calls == ["a", "b"] * 4
    assert timings["a"] == (2.0, 1.0)
    assert timings["b"] == (5.0, 0.0)


def test_the_clock_of_a_contender_sees_its_work() -> None:
    done: list[int] = []
    assert clocked(lambda: done.append(1))() >= 0
    assert done == [1]


def test_the_median_resists_one_slow_round() -> None:
    assert timing_of([1.0, 1.0, 1.0, 9.0, 1.0]) == (1.0, 8.0)


@pytest.mark.parametrize(("unit", "ours", "peer", "limit"), [("images/s", 40, 20, 80), ("s", 5, 10, 2.5)])
def test_a_ratio_above_one_means_that_ours_is_better(
    unit: str, ours: float, peer: float, limit: float
) -> None:
    row = compare("claim", unit, ours, peer, "peer", "command", limit)
    assert (row.ratio, row.fraction) == (2.0, 0.5)


def test_a_mark_that_one_side_never_reached_has_no_ratio() -> None:
    for ours, peer in ((None, 3.0), (3.0, None)):
        assert compare("claim", "s", ours, peer, "peer", "command").ratio is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1230"),
        (0.012345, "0.0123"),
        (9.999, "10.0"),
        (7.1, "7.10"),
        (0.0, "0.00"),
        (296_123, "296000"),
    ],
)
def test_numbers_have_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert significant(value) == text


def test_the_table_is_written_between_the_markers_and_the_prose_stays(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{TABLE_START}\nold\n{TABLE_END}\nafter\n")
    write_table(readme, tmp_path)
    assert "Nothing has been measured yet." in readme.read_text()

    rows: list[Row | dict[str, object]] = [
        compare("faster", "images/s", 4000.0, 1000.0, "other", "python -m bench x", 8000.0, "a note"),
        {
            "claim": "slow",
            "unit": "s",
            "ours": 1.0,
            "peer": None,
            "peer_name": "other",
            "command": "python -m bench x",
        },
    ]
    write_results("x", rows, True, MACHINE, tmp_path)
    write_results("empty", [], False, MACHINE, tmp_path)
    for _ in range(2):  # a second time changes nothing
        write_table(readme, tmp_path)
        lines = readme.read_text().splitlines()
        assert lines[0] == "before"
        assert lines[-1] == "after"
        assert "old" not in lines
        assert (
            "| faster | 4000 images/s | other: 1000 images/s | **4.00 ×** | 8000 images/s | 50.0% | a note |"
            in lines
        )
        assert "| slow | 1.00 s | other: not reached |  |  |  |  |" in lines
        assert sum("a processor" in line for line in lines) == 1


def test_a_readme_without_markers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("prose")
    with pytest.raises(ValueError, match="lacks the line"):
        write_table(tmp_path / "README.md", tmp_path)
    assert TABLE_START in README.read_text()


def test_results_name_the_machine(tmp_path: Path) -> None:
    path = write_results("x", [], True, describe(), tmp_path)
    written = json.loads(path.read_text())
    assert written["form"] == "short"
    assert {"processor", "cores", "torch", "busy", "lightly"} <= written["machine"].keys()


def test_a_fresh_process_has_its_own_environment_and_gives_back_what_the_function_does() -> None:
    assert fresh(os.getenv, {"ONLY_THERE": "yes"}, key="ONLY_THERE") == "yes"
    assert os.getenv("ONLY_THERE") is None


def test_a_fresh_process_that_fails_is_named() -> None:
    with pytest.raises(ChildFailedError, match=r"statistics:median failed with exit code 1"):
        fresh(statistics.median, data=[])


def test_a_benchmark_whose_process_fails_says_so_in_one_line_and_keeps_its_last_results(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in RESULTS.glob("*.json")}
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))  # where there is no CIFAR-10
    assert run("faults", short=True) == EXIT_FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("faults: bench.faults:overhead failed with exit code 1")
    assert {path: path.read_bytes() for path in RESULTS.glob("*.json")} == before


def test_a_missing_peer_is_named_with_the_remedy() -> None:
    with pytest.raises(CannotMeasureError, match=r"'no_such_peer' is not installed.*\[bench\]"):
        require("no_such_peer")


def test_missing_data_are_refused_with_the_name_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    assert small_set() == "shapes"
    with pytest.raises(CannotMeasureError, match=DATA_DIR_VARIABLE):
        photograph_files()
    with pytest.raises(DataError, match=DATA_DIR_VARIABLE):
        cifar10()
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))
    assert small_set() == "cifar10"
    with pytest.raises(DataError, match="photos"):
        photograph_files()


def test_our_views_and_the_peers_readers_work_on_real_files(tmp_path: Path) -> None:
    views.our_epochs(small_images("shapes", 8), batch_size=4, size=16)()
    for number in range(photographs.BATCH):
        Image.new("RGB", (300, 260)).save(tmp_path / f"{number}.jpg")
    paths = sorted(tmp_path.glob("*.jpg"))
    photographs.decode_reduced(paths)
    assert photographs.read_picture(paths[0]).size == (300, 260)
    assert photographs.read_tensor(paths[0]).shape == (3, 260, 300)
    files = photographs.Files(paths, photographs.read_picture, lambda picture: [torch.tensor(picture.width)])
    assert len(files) == photographs.BATCH
    assert [int(view) for view in files[0]] == [300]


def test_the_operations_of_a_step_are_those_of_its_convolutions() -> None:
    """Forward, backward (twice the forward) and the teacher's forward of ResNet-18: 4 × 1.11 GFLOP."""
    flops = step.flops_per_image(step.our_settings("moco", 1.0, batch_size=2))
    assert flops == pytest.approx(4.44e9, rel=0.01)


def test_the_exponent_of_a_power_law_is_found() -> None:
    sizes = [1.0, 10.0, 100.0]
    assert scaling.exponent(sizes, [5 * size**1.5 for size in sizes]) == pytest.approx(1.5)


def test_an_axis_is_written_with_its_exponent_and_bars() -> None:
    axis = scaling.AXES[1]
    timings = {"16": timing_of([1.0]), "32": timing_of([4.0])}
    text = scaling.section(axis, (16, 32), timings, {"16": 500.0, "32": 600.0})
    assert "exponent 2.00" in text
    assert f"| 32 | 4.00 | {'█' * scaling.BAR} | 600 |" in text


def test_the_points_of_scaling_have_a_cost() -> None:
    for cost in (
        scaling.data_cost(1, images=100),
        scaling.step_cost(1, side=16, batch=4, width=0.125, slots=8, embedding=8),
    ):
        assert cost["seconds"] > 0
        assert cost["megabytes"] > 0


def test_a_mark_is_passed_at_the_first_measurement_at_or_above_it() -> None:
    curve = [Point(10, 1, 0.38), Point(20, 2, 0.45), Point(30, 3, 0.44), Point(40, 4, 0.5)]
    assert passing_time(curve, 40) == 20
    assert passing_time(curve, 45) == 20
    assert passing_time(curve, 50) == 40
    assert passing_time(curve, 55) is None


def test_there_are_rows_when_both_sides_have_a_curve(tmp_path: Path) -> None:
    for side, seconds in (("ours", 10), ("lightly", 40)):
        assert time_to_accuracy.rows(tmp_path) == []
        curve = [{"seconds": seconds, "images": 1, "top1": 0.41}]
        (tmp_path / f"{side}.json").write_text(json.dumps({"curve": curve}))
    (row,) = time_to_accuracy.rows(tmp_path)
    assert (row.ours, row.peer, row.ratio) == (10, 40, 4)


def test_the_clock_stands_still_while_it_is_stopped() -> None:
    moments = iter([100.0, 107.0, 110.0, 150.0, 152.0])
    clock = Clock(lambda: next(moments))
    assert clock.seconds() == 7
    with clock.stopped():  # from 110 to 150
        pass
    assert clock.seconds() == 12


def test_our_side_is_measured_on_the_way_and_at_the_end(tmp_path: Path, image_folder: Path) -> None:
    images = two_classes(20)
    settings = PretrainSettings.model_validate(
        {
            "data": image_folder,
            "out": tmp_path / "run",
            "steps": 4,
            "batch_size": 8,
            "image_size": 16,
            "backbone": {"name": "resnet", "depth": 10, "width": 0.125},
            "method": {"name": "moco", "memory": {"slots": 16}},
            "checkpoint_every": "2 steps",
            "monitor": {"every": "100%", "images": 10},
        }
    )
    judge = Judge(images, images, tmp_path / "ours.json", {"recipe": "tiny"}, minutes=(0.0, 1e6))
    time_to_accuracy.train_ours(settings, judge)
    written = json.loads((tmp_path / "ours.json").read_text())
    assert written["recipe"] == "tiny"
    assert [point["images"] for point in written["curve"]] == [16, 32]
    assert read_curve(tmp_path / "ours.json")[-1].top1 > 0


def test_lightlys_side_runs_to_its_end(tmp_path: Path) -> None:
    pytest.importorskip("lightly")
    images = small_images("shapes", 16)
    judge = Judge(images, images, tmp_path / "lightly.json", {})
    time_to_accuracy.train_lightly(
        images, minutes=1e-6, seed=0, judge=judge, width=0.125, batch_size=8, rehearsed_steps=2
    )
    (point,) = read_curve(tmp_path / "lightly.json")
    assert point.images == 8


def test_the_peers_train_as_their_documentation_says() -> None:
    pytest.importorskip("lightly")
    from bench.peers import CIFAR_BENCHMARK, EXAMPLE, LightlyMoCo, lightly_step

    pair = [torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32)]
    for documented in (EXAMPLE, CIFAR_BENCHMARK):
        model = LightlyMoCo(documented, width=0.125).train()
        before = [parameter.clone() for parameter in model.backbone.parameters()]
        assert torch.isfinite(lightly_step(model, model.optimizer(), pair))
        assert any(not torch.equal(*both) for both in zip(before, model.backbone.parameters(), strict=True))
        assert all(parameter.grad is None for parameter in model.key_backbone.parameters())

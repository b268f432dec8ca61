import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import paint
from crosscontext.backbones import ResNetSettings
from crosscontext.encoders import Preprocessing, encoder_of, save_encoder
from crosscontext.errors import CheckpointError, DataError, SettingsError
from crosscontext.evaluation import EvaluateSettings, evaluate
from crosscontext.results import read_results
from crosscontext.run_folder import RunFolder
from crosscontext.tasks import KnnSettings

NARROW = ResNetSettings(depth=10, width=0.125, stem="small")


@pytest.fixture
def run(tmp_path: Path, image_folder: Path) -> Path:
    """A run folder as pretraining leaves it, as far as evaluation reads it."""
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    torch.manual_seed(0)
    save_encoder(folder.encoder, encoder_of(NARROW.build(), NARROW, Preprocessing.for_size(16), step=3))
    folder.config.write_text(f"data: {{name: folder, path: {image_folder}}}\nout: somewhere\n")
    return folder.path


def settings(run: Path, **changes: object) -> EvaluateSettings:
    return EvaluateSettings.model_validate({"run": run, "tasks": [KnnSettings(k=(5,)), "linear"], **changes})


def test_every_task_is_run_on_the_encoder_and_its_references(run: Path) -> None:
    scores = evaluate(settings(run))
    assert [(score.model, score.task, score.metric) for score in scores] == [
        (model, task, metric)
        for model in ("encoder", "pixels", "random")
        for task, metric in (("knn", "top1_k5"), ("linear", "top1"))
    ]
    assert all(0 <= score.low <= score.value <= score.high <= 1 for score in scores)
    assert all(score.value > 0.6 for score in scores)  # red or blue is an easy question
    assert len({score.checkpoint_digest for score in scores}) == 3


def test_tasks_that_need_a_network_leave_pixels_out_and_say_so(run: Path) -> None:
    said: list[str] = []
    short = {"epochs": 1, "batch_size": 16}
    tasks = [
        {"name": "linear_sgd", "training": short},
        {"name": "semi", "labels": ["50%"], "training": short},
        {"name": "finetune", "training": short},
        "svm",
    ]
    scores = evaluate(settings(run, tasks=tasks), said.append)
    with_network = [("linear_sgd", "top1"), ("semi", "top1_50%"), ("finetune", "top1")]
    of_features = [("svm", "top1"), ("svm", "mAP")]
    assert [(score.model, score.task, score.metric) for score in scores] == [
        (model, *measured)
        for model in ("encoder", "pixels", "random")
        for measured in ([] if model == "pixels" else with_network) + of_features
    ]
    assert [line for line in said if "needs a network" in line] == [
        f"pixels: no {name}, which needs a network" for name, _ in with_network
    ]


def test_the_scores_are_added_to_the_results_file_of_the_run(run: Path) -> None:
    first = evaluate(settings(run))
    second = evaluate(settings(run, references=[]))
    assert read_results(run / "results.jsonl") == ([*first, *second], [])


def test_an_encoder_file_is_as_good_as_its_run_folder(run: Path) -> None:
    by_folder = evaluate(settings(run, references=[]))
    by_file = evaluate(settings(run / "encoder.safetensors", references=[]))
    assert [score.value for score in by_file] == [score.value for score in by_folder]
    assert len(read_results(run / "results.jsonl").scores) == 4


def test_scores_repeat_exactly_but_for_their_times(run: Path) -> None:
    first, second = (
        [score.model_dump(exclude={"seconds", "created"}) for score in evaluate(settings(run))]
        for _ in range(2)
    )
    assert first == second


def test_models_share_a_protocol_and_tasks_do_not(run: Path) -> None:
    scores = evaluate(settings(run))
    by_task = {task: {s.protocol_digest for s in scores if s.task == task} for task in ("knn", "linear")}
    assert all(len(digests) == 1 for digests in by_task.values())
    assert by_task["knn"] != by_task["linear"]


@pytest.mark.parametrize("change", [{"image_size": 24}, {"tasks": [KnnSettings(k=(6,))]}, {"test_data": "…"}])
def test_a_change_of_conditions_changes_the_protocol(
    run: Path, image_folder: Path, change: dict[str, object]
) -> None:
    if "test_data" in change:
        change = {"test_data": image_folder}
    usual = evaluate(settings(run, tasks=[KnnSettings(k=(5,))], references=[]))
    changed = evaluate(settings(run, references=[], **{"tasks": [KnnSettings(k=(5,))], **change}))
    assert changed[0].protocol_digest != usual[0].protocol_digest


def test_the_place_of_the_data_is_not_part_of_the_protocol(
    run: Path, image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").symlink_to(image_folder)
    here, there = (
        evaluate(settings(run, references=[], data=path)) for path in (image_folder, tmp_path / "elsewhere")
    )
    assert here[0].protocol_digest == there[0].protocol_digest


def test_given_test_images_are_scored_and_nothing_else(run: Path, image_folder: Path, tmp_path: Path) -> None:
    for number in range(6):
        paint(
            tmp_path / "exam" / ("red", "blue")[number % 2] / f"{number}.jpg",
            900 + number,
            (0, 2)[number % 2],
        )
    scores = evaluate(settings(run, data=image_folder, test_data=tmp_path / "exam", references=[]))
    assert {score.n for score in scores} == {6}


def test_unreadable_images_are_left_out_and_named(run: Path, tmp_path: Path) -> None:
    for number in range(30):
        paint(tmp_path / "holed" / ("red", "blue")[number % 2] / f"{number}.jpg", number, (0, 2)[number % 2])
    (tmp_path / "holed" / "red" / "4.jpg").write_bytes(b"")
    said: list[str] = []
    evaluate(settings(run, data=tmp_path / "holed", references=[]), said.append)
    assert any("1 unreadable images are left out: red/4.jpg" in line for line in said)


def test_progress_is_told_line_by_line(run: Path) -> None:
    said: list[str] = []
    evaluate(settings(run), said.append)
    assert re.fullmatch(r"\d+ training and \d+ test images of 2 classes .*hash of names.*", said[0])
    assert [line for line in said if line.startswith("random: linear top1 ")]
    assert not any("\n" in line for line in said)


def test_test_labels_have_no_say_in_what_is_learned(run: Path, image_folder: Path, tmp_path: Path) -> None:
    """With the labels of the test images exchanged, every right answer becomes a wrong one."""
    for honest in image_folder.glob("*/*.jpg"):
        swapped = {"red": "blue", "blue": "red"}[honest.parent.name]
        for folder, name in (("honest", honest.parent.name), ("poisoned", swapped)):
            copy = tmp_path / folder / name / honest.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(honest.read_bytes())
    honest_scores, poisoned_scores = (
        evaluate(settings(run, data=image_folder, test_data=tmp_path / folder))
        for folder in ("honest", "poisoned")
    )
    for honest_score, poisoned_score in zip(honest_scores, poisoned_scores, strict=True):
        assert poisoned_score.value == pytest.approx(1 - honest_score.value)
        assert poisoned_score.details == honest_score.details


def test_without_labels_the_error_says_how_to_give_them(run: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for number in range(20):
        pixels = np.full((16, 16, 3), number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "plain" / f"{number}.png")
    with pytest.raises(DataError, match=r"no labels.*sub-folder"):
        evaluate(settings(run, data=tmp_path / "plain"))


def test_without_config_the_data_must_be_given(run: Path) -> None:
    (run / "config.yaml").unlink()
    with pytest.raises(SettingsError, match=r"does not say which images.*--data DIR"):
        evaluate(settings(run))


def test_a_folder_without_encoder_is_refused(tmp_path: Path, image_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no encoder"):
        evaluate(settings(tmp_path, data=image_folder))


def test_names_of_tasks_stand_for_their_settings(run: Path) -> None:
    assert EvaluateSettings.model_validate({"run": run, "tasks": ["knn", "linear"]}) == EvaluateSettings(
        run=run
    )

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import paint
from crosscontext.backbones import ResNetSettings
from crosscontext.encoders import Preprocessing, encoder_of, load_encoder, save_encoder
from crosscontext.errors import CheckpointError, DataError, SettingsError
from crosscontext.evaluation import EvaluateSettings, evaluate
from crosscontext.results import Score, read_results
from crosscontext.run_folder import RunFolder
from crosscontext.tasks import CopiesSettings, HealthSettings, KnnSettings

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


@pytest.mark.usefixtures("impatient")
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
    for name, _ in with_network:
        assert any(line.startswith(f"random: {name}: step 1 of ") for line in said)


def test_the_scores_are_added_to_the_results_file_of_the_run(run: Path) -> None:
    first = evaluate(settings(run))
    second = evaluate(settings(run, references=[]))
    assert read_results(run / "results.jsonl") == ([*first, *second], [])


def test_an_encoder_file_is_as_good_as_its_run_folder(run: Path) -> None:
    by_folder = evaluate(settings(run, references=[]))
    by_file = evaluate(settings(run / "encoder.safetensors", references=[]))
    assert [score.value for score in by_file] == [score.value for score in by_folder]
    assert len(read_results(run / "results.jsonl").scores) == 4


def without_times(scores: Sequence[Score]) -> list[dict[str, object]]:
    return [score.model_dump(exclude={"seconds", "created"}) for score in scores]


def test_scores_repeat_exactly_but_for_their_times(run: Path) -> None:
    first, second = (without_times(evaluate(settings(run, cache=False))) for _ in range(2))
    assert first == second
    assert not (run / "features").exists()


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 7, "workers": 3}, {"workers": 0}])
def test_batch_size_and_workers_change_no_score(run: Path, change: dict[str, int]) -> None:
    usual = evaluate(settings(run, cache=False))
    changed = evaluate(settings(run, cache=False, **change))
    assert without_times(changed) == without_times(usual)


def test_features_of_earlier_commands_are_used_and_change_no_score(run: Path) -> None:
    said: list[str] = []
    plain = evaluate(settings(run, cache=False))
    first = evaluate(settings(run))
    assert len(list((run / "features").iterdir())) == 4  # of encoder and random, for training and test images
    second = evaluate(settings(run), said.append)
    assert without_times(plain) == without_times(first) == without_times(second)
    assert sum("were computed before" in line for line in said) == 4
    assert [line for line in said if "computing" in line and not line.startswith("pixels: ")] == []


def test_tasks_share_the_features_of_a_model(run: Path) -> None:
    said: list[str] = []
    evaluate(settings(run, cache=False, references=[]), said.append)
    assert sum("computing features" in line for line in said) == 2  # of training and test images


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
        assert poisoned_score.checkpoint_digest == honest_score.checkpoint_digest


def test_permuted_test_labels_change_no_choice_and_no_model(
    run: Path, image_folder: Path, tmp_path: Path
) -> None:
    honest = sorted(image_folder.glob("*/*.jpg"))
    permuted = np.random.default_rng(0).permutation(len(honest))
    for picture, other in zip(honest, permuted, strict=True):
        copy = tmp_path / "poisoned" / honest[other].parent.name / picture.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(picture.read_bytes())
    tasks = [KnnSettings(k=(1, 5)), "linear"]
    kept, poisoned = (
        evaluate(settings(run, data=image_folder, test_data=folder, tasks=tasks))
        for folder in (image_folder, tmp_path / "poisoned")
    )
    for one, other_score in zip(kept, poisoned, strict=True):
        assert other_score.value < one.value - 0.2  # the poison is strong
        assert other_score.details == one.details
        assert other_score.checkpoint_digest == one.checkpoint_digest
    assert {score.task for score in kept if len(score.details) > 1} == {"linear"}  # which has choices


def test_without_labels_the_error_says_how_to_give_them(run: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for number in range(20):
        pixels = np.full((16, 16, 3), number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "plain" / f"{number}.png")
    with pytest.raises(DataError, match=r"no labels.*sub-folder"):
        evaluate(settings(run, data=tmp_path / "plain"))


def test_tasks_that_need_no_labels_and_no_training_images_read_neither(run: Path, tmp_path: Path) -> None:
    for number in range(12):
        paint(tmp_path / "exam" / f"{number}.jpg", number, number % 3)
        (tmp_path / "lessons").mkdir(exist_ok=True)
        (tmp_path / "lessons" / f"{number}.jpg").write_bytes(b"")
    said: list[str] = []
    tasks = [CopiesSettings(distortions=("jpeg",)), HealthSettings(neighbours=5)]
    scores = evaluate(
        settings(
            run, data=tmp_path / "lessons", test_data=tmp_path / "exam", references=["pixels"], tasks=tasks
        ),
        said.append,
    )
    assert {(score.model, score.task) for score in scores} == {
        (model, task) for model in ("encoder", "pixels") for task in ("copies", "health")
    }
    assert {score.n for score in scores} == {12}
    assert not any("unreadable" in line for line in said)


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


def test_the_start_of_the_run_is_a_reference(run: Path, image_folder: Path) -> None:
    weights = load_encoder(run).backbone.model.state_dict()
    torch.save(weights, run / "start.pt")
    (run / "config.yaml").write_text(
        f"data: {{name: folder, path: {image_folder}}}\nbackbone: {{name: resnet, weights: {run}/start.pt}}\n"
    )
    scores = evaluate(settings(run, references=["start"]))
    assert [score.model for score in scores] == ["encoder", "encoder", "start", "start"]
    assert [score.value for score in scores[:2]] == [score.value for score in scores[2:]]
    assert len({score.checkpoint_digest for score in scores}) == 1


def test_other_encoders_are_scored_under_the_same_protocol_and_each_says_what_it_saw(
    run: Path, tmp_path: Path
) -> None:
    colours = Preprocessing(image_size=64, crop_fraction=0.875, mean=(0.5, 0.5, 0.5), std=(1, 1, 1))
    (tmp_path / "theirs").mkdir()
    save_encoder(tmp_path / "theirs/encoder.safetensors", encoder_of(NARROW.build(), NARROW, colours, step=3))
    scores = evaluate(settings(run, tasks=["linear"], references=["pixels", str(tmp_path / "theirs")]))
    assert [score.model for score in scores] == ["encoder", "pixels", "theirs"]
    assert len({score.protocol_digest for score in scores}) == 1
    own, _, theirs = (score.details["preprocessing"] for score in scores)
    assert own == Preprocessing.for_size(16).model_dump(mode="json")
    assert theirs == {"image_size": 16, "crop_fraction": 1.0, "mean": [0.5, 0.5, 0.5], "std": [1, 1, 1]}


@pytest.mark.parametrize(
    ("references", "complaint"),
    [
        (["pixels", "pixels"], r"Two models would be called pixels"),
        (["start"], "it started from random ones"),
    ],
)
def test_what_cannot_be_a_reference_is_refused_before_anything_is_scored(
    run: Path, references: list[str], complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        evaluate(settings(run, references=references))
    assert not (run / "results.jsonl").exists()

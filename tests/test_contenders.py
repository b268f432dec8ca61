from collections.abc import Mapping
from pathlib import Path

import pytest

from crosscontext.contenders import NOT_OF_THE_METHOD, Contender, Run, contenders_of, read_run
from crosscontext.errors import RunFolderError, SettingsError
from crosscontext.planning import PretrainSettings
from crosscontext.results import Score, append_results
from handmade import PROTOCOL, score

CONFIG: Mapping[str, object] = {
    "data": {"name": "folder", "path": "/here/photos"},
    "out": "runs/a",
    "seed": 0,
    "threads": 1,
    "method": {"name": "cgh", "momentum": 0.99},
    "backbone": {"name": "resnet", "depth": 18, "weights": None},
    "optimizer": {"learning_rate": 0.12},
}


def run(name: str, *scores: Score, **config: object) -> Run:
    return Run(Path(name), {**CONFIG, **config}, scores or (score(),))


def contenders(
    *runs: Run, labels: tuple[str, ...] = (), said: list[str] | None = None
) -> dict[str, Contender]:
    heard: list[str] = [] if said is None else said
    return {contender.label: contender for contender in contenders_of(runs, labels, heard.append)}


def values(contender: Contender) -> dict[int | str | None, float]:
    """Of the only line."""
    (by_seed,) = contender.scores.values()
    return {seed: found.value for seed, found in by_seed.items()}


def test_the_settings_that_do_not_make_a_method_are_settings() -> None:
    assert PretrainSettings.model_fields.keys() >= NOT_OF_THE_METHOD


def test_runs_that_differ_in_seed_machine_and_place_are_one_method() -> None:
    found = contenders(
        run("a", score(0.5)),
        run("b", score(0.6), seed=1, out="runs/b", threads=None, device="cuda"),
        run("c", score(0.7), seed=2, data={"name": "folder", "path": "/there/photos"}),
    )
    assert list(found) == ["cgh"]
    assert values(found["cgh"]) == {0: 0.5, 1: 0.6, 2: 0.7}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"optimizer": {"learning_rate": 0.06}}, "optimizer.learning_rate (0.12, 0.06)"),
        ({"data": {"name": "folder", "path": "/here/others"}}, "data.path (photos, others)"),
        ({"steps": 9}, "steps (null, 9)"),
        ({"invented": 1}, "invented (absent, 1)"),
    ],
)
def test_runs_of_other_settings_are_other_methods_and_the_field_is_told(
    change: dict[str, object], told: str
) -> None:
    said: list[str] = []
    found = contenders(run("x/a"), run("x/b", seed=1), run("x/c", **change), said=said)
    assert list(found) == ["cgh (x/a)", "cgh (x/c)"]
    assert [len(values(contender)) for contender in found.values()] == [2, 1]
    assert said == [f"cgh: x/a and x/c differ in {told}"]


def test_a_setting_that_is_newer_than_a_run_has_todays_default() -> None:
    older = {"name": "simcgh"}
    settings = PretrainSettings.model_validate({"data": "shapes", "out": "runs/a", "method": older})
    newer = settings.model_dump(mode="json")["method"]
    assert "local_views" in newer
    runs = run("a", score(0.5), method=older), run("b", score(0.6), seed=1, method=newer)
    assert list(contenders(*runs)) == ["simcgh"]
    changed = run("b", score(0.6), seed=1, method={**newer, "local_views": 2})
    said: list[str] = []
    assert len(contenders(runs[0], changed, said=said)) == 2
    assert said == ["simcgh: a and b differ in method.local_views (0, 2)"]


def test_methods_of_other_names_bear_them() -> None:
    assert list(contenders(run("a"), run("b", method={"name": "moco"}))) == ["cgh", "moco"]


def test_labels_decide_what_a_method_is() -> None:
    runs = run("a", score(0.5)), run("b", score(0.6), seed=1, steps=9), run("c", score(0.7), seed=1)
    found = contenders(*runs, labels=("mine", "mine", "yours"))
    assert [(label, values(contender)) for label, contender in found.items()] == [
        ("mine", {0: 0.5, 1: 0.6}),
        ("yours", {1: 0.7}),
    ]


def test_a_seed_counts_once() -> None:
    said: list[str] = []
    found = contenders(run("a", score(0.5)), run("copy of a", score(0.6)), said=said)
    assert values(found["cgh"]) == {0: 0.5}
    assert said == ["copy of a is left out: a is cgh with seed 0 already"]


def test_the_newest_score_counts_wherever_it_stands() -> None:
    found = contenders(run("a", score(0.5, hour=4), score(0.7, hour=5), score(0.6, hour=3)))
    assert values(found["cgh"]) == {0: 0.7}


def test_scores_of_other_metrics_and_protocols_stand_in_other_lines() -> None:
    (found,) = contenders(
        run("a", score(), score(metric="top1_k1"), score(0.5, {**PROTOCOL, "seed": 1}))
    ).values()
    assert len(found.scores) == 3


def test_runs_without_settings_are_methods_of_their_own_and_share_no_seed() -> None:
    first, second = Run(Path("a"), {}, [score(0.5)]), Run(Path("b"), {}, [score(0.6)])
    found = contenders(first, second)
    assert {label: values(contender) for label, contender in found.items()} == {
        "a": {"a": 0.5},
        "b": {"b": 0.6},
    }
    assert values(contenders(first, second, labels=("x", "x"))["x"]) == {"a": 0.5, "b": 0.6}


def test_each_reference_appears_once_with_its_newest_score() -> None:
    old, new = score(0.3, model="pixels", hour=3), score(0.31, model="pixels", hour=4)
    found = contenders(
        run("a", score(), new, score(0.2, model="random", checkpoint_digest="a bit")),
        run("b", score(), old, score(0.2, model="random", checkpoint_digest="otherwise rounded"), seed=1),
        run("c", score(), score(0.4, model="start"), method={"name": "moco"}),
    )
    assert list(found) == ["cgh", "moco", "pixels", "random", "start"]
    assert [contender.is_reference for contender in found.values()] == [False, False, True, True, True]
    assert values(found["pixels"]) == {None: 0.31}


def test_untrained_twins_of_other_backbones_and_other_weights_are_told_apart() -> None:
    wide = {"name": "resnet", "depth": 50, "weights": None}
    started = {"name": "resnet", "depth": 18, "weights": "w.pt"}
    twin, theirs = score(model="random"), score(model="theirs", checkpoint_digest="0011223344556677")
    found = contenders(
        run("a", score(), twin, theirs),
        run("b", score(), twin, score(model="theirs", checkpoint_digest="8899aabbccddeeff"), backbone=wide),
        run("c", score(), twin, backbone=started, method={"name": "moco"}),  # twins forget their weights
    )
    assert list(found) == [
        "cgh (a)",
        "cgh (b)",
        "moco",
        "random (cgh (a))",
        "random (cgh (b))",
        "theirs (00112233)",
        "theirs (8899aabb)",
    ]


def test_a_method_must_not_bear_the_name_of_a_reference() -> None:
    with pytest.raises(SettingsError, match=r"Two columns would be called pixels.*--labels"):
        contenders(run("a", score(), score(model="pixels")), labels=("pixels",))


def test_a_run_is_read_from_its_folder_or_its_results_file(tmp_path: Path) -> None:
    append_results(tmp_path / "results.jsonl", [score(0.5)])
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    by_folder = read_run(tmp_path, lambda _: None)
    by_file = read_run(tmp_path / "results.jsonl", lambda _: None)
    assert by_folder.config == by_file.config == {"seed": 3}
    assert by_folder.scores == by_file.scores == [score(0.5)]


def test_torn_lines_are_told_and_cost_nothing_else(tmp_path: Path) -> None:
    append_results(tmp_path / "results.jsonl", [score(0.5), score(0.6)])
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    (tmp_path / "results.jsonl").write_text(f"{lines[0][:70]}\n{lines[1]}\n")
    said: list[str] = []
    assert read_run(tmp_path, said.append).scores == [score(0.6)]
    assert said == [f"{tmp_path / 'results.jsonl'}: torn lines are left out: 1"]


def test_without_scores_the_error_says_who_writes_them(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"cannot be read: No such file.*crosscontext evaluate"):
        read_run(tmp_path, lambda _: None)
    (tmp_path / "results.jsonl").touch()
    with pytest.raises(RunFolderError, match=r"holds no scores.*crosscontext evaluate"):
        read_run(tmp_path, lambda _: None)

import io
import json
import os
import pty
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as RichProgress

from crosscontext.tracking import (
    Bar,
    MetricsFile,
    PlainLines,
    Progress,
    Silence,
    SkippedFile,
    Stopwatch,
    console_progress,
    read_metrics,
    summary,
)


def test_each_logged_step_is_a_line_of_json(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", first_step=0)
    metrics.write(10, 640, {"train/loss": 2.5})
    metrics.write(20, 1280, {"train/loss": 2.25, "val/knn_top1": 0.5})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 10, "images": 640, "train/loss": 2.5},
        {"step": 20, "images": 1280, "train/loss": 2.25, "val/knn_top1": 0.5},
    ]


def test_a_line_is_in_the_file_before_the_next_step(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl", first_step=0)
    for step in (1, 2):
        metrics.write(step, step, {})
        assert read_metrics(tmp_path / "metrics.jsonl")[-1]["step"] == step


def test_a_resumed_run_drops_the_lines_that_it_will_write_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path, first_step=0)
    for step in (10, 20, 30):
        first.write(step, step, {"train/loss": 1.0})
    MetricsFile(path, first_step=20).write(20, 20, {"train/loss": 9.0})
    assert [(line["step"], line["train/loss"]) for line in read_metrics(path)] == [(10, 1), (20, 9)]


def test_a_line_that_a_crash_has_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "images": 8}\n{"step": 2, "ima')
    assert read_metrics(path) == [{"step": 1, "images": 8}]
    MetricsFile(path, first_step=5).write(5, 40, {})
    assert [line["step"] for line in read_metrics(path)] == [1, 5]


def test_an_unreadable_image_is_listed_once_and_only_a_new_one_touches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "skipped.jsonl"
    listed = SkippedFile(path)
    listed.add({})
    assert not path.exists()
    listed.add({"b.jpg": "torn", "a.jpg": "empty"})
    path.chmod(0o444)
    before = path.stat()
    listed.add({"a.jpg": "empty", "b.jpg": "torn"})
    SkippedFile(path).add({"a.jpg": "gone"})  # as a resumed run meets it
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    path.chmod(0o644)
    SkippedFile(path).add({"a.jpg": "empty", "c.jpg": "gone"})
    assert path.stat().st_ino == before.st_ino  # appended to, not written anew
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"name": "a.jpg", "cause": "empty"},
        {"name": "b.jpg", "cause": "torn"},
        {"name": "c.jpg", "cause": "gone"},
    ]


@pytest.mark.parametrize("whole", ["", '{"name": "a", "cause": "torn"}\n'])
def test_a_name_that_a_crash_has_cut_off_is_listed_again(tmp_path: Path, whole: str) -> None:
    path = tmp_path / "skipped.jsonl"
    path.write_text(whole + '{"name": "b", "ca')
    SkippedFile(path).add({"b": "gone"})
    assert path.read_text() == whole + '{"name": "b", "cause": "gone"}\n'


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "absent.jsonl") == []


def test_a_new_run_starts_with_an_empty_file(tmp_path: Path) -> None:
    MetricsFile(tmp_path / "metrics.jsonl", first_step=1)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_person_sees_loss_speed_and_score_and_nothing_that_is_not_known() -> None:
    scalars = {"time/images_per_second": 123.4, "train/loss": 2.3456, "train/lr": 0.1, "val/knn_top1": 0.5012}
    assert summary(scalars) == "loss 2.346  images/s 123  k-NN 50.1%"
    assert summary({"health/rankme": 12.34}) == "RankMe 12.3"
    assert summary({"train/lr": 0.1}) == ""


def test_plain_lines_go_to_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    PlainLines().say("a fact")
    assert capsys.readouterr() == ("", "a fact\n")


def test_plain_lines_come_every_ten_seconds_and_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0, 5, 10, 15, 20, 22])
    monkeypatch.setattr(time, "monotonic", lambda: 0)
    lines = PlainLines()
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    lines.start(total_steps=9, step=4)
    for step in range(5, 10):
        lines.advance(step, {"train/loss": float(step)})
    assert capsys.readouterr().err.splitlines() == [
        "step 6/9  loss 6.000  left 0:00:15",
        "step 8/9  loss 8.000  left 0:00:05",
        "step 9/9  loss 9.000  left 0:00:00",
    ]


def test_a_bar_shows_steps_and_summary_and_writes_facts_as_they_are() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[summary]}"))
    with RichProgress(*columns, console=console, auto_refresh=False) as rich_bar:
        bar = Bar(rich_bar)
        bar.say("[0.2, 1.0] is [bold]not[/bold] markup")
        assert "0/" not in screen.getvalue()
        bar.start(total_steps=20, step=5)
        bar.advance(7, {"train/loss": 2.5})
        rich_bar.refresh()
    assert "[0.2, 1.0] is [bold]not[/bold] markup" in screen.getvalue()
    assert " 7/20 loss 2.500" in screen.getvalue()


def test_silence_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress: Progress = Silence()
    progress.start(10, 0)
    progress.advance(10, {"train/loss": 1.0})
    progress.say("a fact")
    assert capsys.readouterr() == ("", "")


def test_a_stream_that_is_no_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with console_progress() as progress:
        assert isinstance(progress, PlainLines)


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream, os.fdopen(controller, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        with console_progress() as progress:
            assert isinstance(progress, Bar)
            progress.start(10, 0)
            progress.advance(10, {"train/loss": 2.5})
            progress.say("a fact")
        shown = b""
        while not shown.endswith(b"\x1b[?25h"):  # the cursor is shown again
            shown += screen.read(1000)
        assert b"a fact" in shown
        assert b"10/10" in shown


def test_a_stopwatch_tells_work_from_waiting_and_leaves_out_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 104.0, 105.0, 108.0, 110.0, 112.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    watch = Stopwatch()
    watch.data_arrived()  # waited 1 s
    watch.step_done(images=40)  # worked 3 s
    watch.pause_over()  # 100 s for a checkpoint
    watch.data_arrived()
    watch.step_done(images=40)
    assert watch.read() == {"time/images_per_second": 10.0, "time/data_wait": 0.25, "time/paused": 100 / 108}
    watch.data_arrived()
    watch.step_done(images=8)
    assert watch.read() == {"time/images_per_second": 2.0, "time/data_wait": 0.5, "time/paused": 0.0}

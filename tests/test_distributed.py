import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import several_processes
from crosscontext import distributed
from crosscontext.errors import SettingsError, StoppedEarlyError
from crosscontext.pretraining import PretrainSettings, pretrain
from crosscontext.run_folder import RunFolder
from crosscontext.settings import load_yaml
from crosscontext.tracking import read_metrics
from several_processes import Programs, finish, run_task, start

BATCH, STEPS = 16, 20
RATE = 0.0005  # small: where rounding flips one ReLU, all later gradients differ in the third digit, or more
MEMORY = {"slots": 30}
SPLIT = {"name": "split", "groups": 4}
CASES: dict[str, dict[str, Any]] = {
    "cgh": {"method": {"name": "cgh", "memory": MEMORY, "centring": "mean"}},
    "cgh-split": {"method": {"name": "cgh", "memory": MEMORY, "local_views": 2}, "batch_norm": SPLIT},
    "cgh-one-way": {"method": {"name": "cgh", "memory": MEMORY, "pairs": ["global->hyper"], "warmup": "25%"}},
    "moco": {"method": {"name": "moco", "memory": MEMORY}},
    "moco-split": {"method": {"name": "moco", "memory": MEMORY}, "batch_norm": SPLIT},
    "sce": {"method": {"name": "sce", "memory": MEMORY}},
    "simcgh": {"method": {"name": "simcgh", "local_views": 2}},
    "simclr": {"method": {"name": "simclr"}},
    "barlow_twins": {"method": {"name": "barlow_twins"}, "optimizer": {"learning_rate": 1e-7}},
    "vicreg": {"method": {"name": "vicreg"}},
    "byol-split": {"method": {"name": "byol"}, "batch_norm": SPLIT},
    "dino": {"method": {"name": "dino", "prototypes": 32, "prototypes_frozen": "5 steps"}},
    "simsiam": {"method": {"name": "simsiam"}},
    "supervised": {"method": {"name": "supervised"}},
    "mobile": {
        "method": {"name": "moco", "memory": MEMORY},
        "backbone": {"name": "timm", "model": "mobilenetv3_small_050"},
        "image_size": 32,
    },
}


def values(data: Path, out: Path, **changes: Any) -> dict[str, Any]:
    usual = {
        "steps": STEPS,
        "batch_size": BATCH,
        "image_size": 16,
        "backbone": {"name": "resnet", "depth": 10, "width": 0.125},
        "optimizer": {"learning_rate": RATE, "warmup": "0%"},
        "log_every": "1 steps",
        "report": False,
        "checkpoint_every": "10 steps",
        "monitor": {"every": "1000 steps", "images": 20},
        "threads": 1,
        "workers": 1,
    }
    return {"data": str(data), "out": str(out)} | usual | changes


@pytest.fixture(scope="module")
def damaged(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures, of which one can no longer be read."""
    folder = shutil.copytree(image_folder, tmp_path_factory.mktemp("damaged") / "pictures")
    (folder / "red" / "00.jpg").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def runs(damaged: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """All cases in one process, under 1; with the worlds that tests add beside it."""
    place = tmp_path_factory.mktemp("runs")
    threads = torch.get_num_threads()
    for name, changes in CASES.items():
        pretrain(PretrainSettings.model_validate(values(damaged, place / "1" / name, **changes)))
    yield place
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def two(runs: Path, damaged: Path) -> Path:
    """All cases in two processes."""
    return run_cases(2, list(CASES), runs, damaged)


@pytest.fixture(scope="module")
def four(runs: Path, damaged: Path) -> Path:
    """Some cases in four processes."""
    return run_cases(4, ["cgh", "cgh-split", "moco", "moco-split"], runs, damaged)


def run_cases(count: int, names: list[str], runs: Path, data: Path) -> Path:
    place = runs / str(count)
    place.mkdir()
    cases = [values(data, place / name, **CASES[name]) for name in names]
    (place / "cases.json").write_text(json.dumps(cases))
    run_task(count, "pretrain_all", str(place / "cases.json"))
    return place


def curve(run: Path, name: str = "train/loss") -> list[float]:
    return [line[name] for line in read_metrics(RunFolder(run).metrics)]


def tensors(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(RunFolder(run).checkpoint, weights_only=True)["method"]
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def assert_alike(ours: Path, alone: Path) -> None:
    losses, norms = curve(alone), curve(alone, "train/gradient_norm")
    assert len(losses) == STEPS
    assert len(set(losses)) > STEPS / 2
    assert curve(ours) == pytest.approx(losses, abs=1e-5, rel=1e-5)
    assert curve(ours, "train/gradient_norm") == pytest.approx(norms, rel=1e-2, abs=1e-5)
    state, expected = tensors(ours), tensors(alone)
    assert state.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, atol=1e-3, rtol=1e-2, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_change_nothing_but_rounding(name: str, two: Path, runs: Path) -> None:
    assert_alike(two / name, runs / "1" / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cgh", "cgh-split", "moco", "moco-split"])
def test_four_processes_change_nothing_but_rounding(name: str, four: Path, runs: Path) -> None:
    assert_alike(four / name, runs / "1" / name)


@pytest.mark.slow
def test_unreadable_images_of_all_processes_are_named_once(two: Path, runs: Path) -> None:
    alone = RunFolder(runs / "1" / "cgh").skipped.read_text()
    assert json.loads(alone)["name"] == "red/00.jpg"
    assert RunFolder(two / "cgh").skipped.read_text() == alone


@pytest.mark.slow
def test_a_run_goes_on_with_other_numbers_of_processes_and_workers(
    damaged: Path, tmp_path: Path, runs: Path
) -> None:
    out = tmp_path / "run"
    parts = [
        values(damaged, out, **CASES["cgh"], resume=begun, workers=workers, stop_after="7 steps")
        for begun, workers in ((False, 1), (True, 0), (True, 3))
    ]
    for number, part in enumerate(parts):
        (tmp_path / f"{number}.json").write_text(json.dumps([part]))
    run_task(2, "pretrain_all", str(tmp_path / "0.json"))
    with pytest.raises(StoppedEarlyError, match="after step 14 of 20"):
        pretrain(PretrainSettings.model_validate(parts[1]))
    run_task(2, "pretrain_all", str(tmp_path / "2.json"))
    assert curve(out) == pytest.approx(curve(runs / "1" / "cgh"), abs=1e-5)


@pytest.mark.slow
def test_processes_tell_each_other_what_one_process_knows() -> None:
    run_task(3, "check_collectives")
    run_task(3, "check_sync")


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_and_is_told_once() -> None:
    (code, _, first), (other_code, _, second) = finish(start(2, several_processes.__file__, "fail_alone"))
    assert (code, other_code) == (41, 41)
    assert "DataError False: the disk of process 1 is empty." in second
    assert "ProcessError True: the disk of process 1 is empty." in first


def options(data: Path, out: Path, *more: str) -> list[str]:
    usual = ["--steps", "400", "--batch-size", "16", "--image-size", "16", "--threads", "1", "--workers", "1"]
    usual += ["--backbone.depth", "10", "--backbone.width", "0.125", "--method.memory.slots", "30"]
    usual += [
        "--no-report",
        "--log-every",
        "1 steps",
        "--monitor.every",
        "10000 steps",
        "--checkpoint-every",
        "10 steps",
    ]
    return ["-m", "crosscontext", "pretrain", "--data", str(data), "--out", str(out), *usual, *more]


def wait_for_steps(out: Path, steps: int, programs: Programs) -> None:
    while len(read_metrics(RunFolder(out).metrics)) < steps:
        assert all(program.poll() is None for program in programs)
        time.sleep(0.05)


@pytest.mark.slow
def test_a_signal_to_one_process_ends_all_after_the_same_step_with_a_checkpoint(
    image_folder: Path, tmp_path: Path
) -> None:
    programs = start(2, *options(image_folder, tmp_path / "run"))
    wait_for_steps(tmp_path / "run", 5, programs)
    programs[1].send_signal(signal.SIGTERM)
    results = finish(programs)
    assert [code for code, _, _ in results] == [143, 143], results
    told = re.findall(r"Interrupted by SIGTERM after step (\d+)", results[0][2] + results[1][2])
    assert len(told) == 1
    saved = torch.load(RunFolder(tmp_path / "run").checkpoint, weights_only=True)
    assert saved["step"] == int(told[0]) == read_metrics(RunFolder(tmp_path / "run").metrics)[-1]["step"]


@pytest.mark.slow
def test_a_process_that_hangs_is_named_within_the_timeout(image_folder: Path, tmp_path: Path) -> None:
    programs = start(2, *options(image_folder, tmp_path / "run", "--timeout-minutes", "0.1"))
    wait_for_steps(tmp_path / "run", 12, programs)
    programs[1].send_signal(signal.SIGSTOP)
    try:
        (code, _, errors), *_ = finish(programs[:1], seconds=120)
    finally:
        programs[1].kill()
        programs[1].communicate()
    assert code == 1
    assert "error: No answer from process 1 of 2" in errors
    assert RunFolder(tmp_path / "run").checkpoint.is_file()


def worker_of(launcher: int, rank: int) -> int:
    """Number of the process of a rank, among those that a launcher has started."""
    for task in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(re.findall(r"PPid:\s+(\d+)", (task / "status").read_text())[0])
            if parent == launcher and f"\0RANK={rank}\0" in (task / "environ").read_text():
                return int(task.name)
        except (OSError, UnicodeDecodeError):
            continue
    raise AssertionError(f"process {rank} of {launcher} is not there")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_torchrun_goes_on_from_the_checkpoint_after_a_process_was_killed(
    image_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    launcher = subprocess.Popen(
        [sys.executable, *command, *options(image_folder, out, "--steps", "120")],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_steps(out, 25, [launcher])
    os.kill(worker_of(launcher.pid, 1), signal.SIGKILL)
    ((code, _, errors),) = finish([launcher])
    assert code == 0, errors
    assert [line["step"] for line in read_metrics(RunFolder(out).metrics)] == list(range(1, 121))
    config = load_yaml(RunFolder(out).config) | {"out": str(tmp_path / "straight")}
    (tmp_path / "straight.json").write_text(json.dumps([config]))
    run_task(2, "pretrain_all", str(tmp_path / "straight.json"))
    assert curve(out) == curve(tmp_path / "straight")


@pytest.mark.slow
def test_devices_start_processes_and_one_of_them_speaks(image_folder: Path, tmp_path: Path) -> None:
    def command() -> subprocess.CompletedProcess[str]:
        program = [sys.executable, *options(image_folder, tmp_path / "run", "--steps", "3", "--devices", "2")]
        return subprocess.run(program, capture_output=True, text=True, check=False, timeout=120)

    done = command()
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"encoder: {tmp_path / 'run' / 'encoder.safetensors'}\n"
    assert json.loads(RunFolder(tmp_path / "run").environment.read_text())["processes"] == 2
    refused = command()
    assert refused.returncode == 1
    assert refused.stderr.count("error:") == 1
    assert "is not empty" in refused.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")
def test_devices_name_the_process_that_was_killed(image_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    launcher = subprocess.Popen(
        [sys.executable, *options(image_folder, out, "--devices", "2")], stderr=subprocess.PIPE, text=True
    )
    wait_for_steps(out, 3, [launcher])
    os.kill(worker_of(launcher.pid, 1), signal.SIGKILL)
    ((code, _, errors),) = finish([launcher])
    assert code == 1
    assert "error: Process 1 of 2 was killed by SIGKILL; the last checkpoint is kept." in errors


def test_one_process_gives_back_what_it_got() -> None:
    rows = torch.randn(6, 2, requires_grad=True)
    assert (distributed.size(), distributed.rank(), distributed.is_first()) == (1, 0, True)
    assert distributed.share(6) == slice(0, 6)
    assert distributed.whole_batch(rows) is rows
    assert distributed.gather({"rows": rows})["rows"] is rows
    assert distributed.mean({"loss": 0.1}) == {"loss": 0.1}
    order = torch.tensor([5, 0, 3, 1, 2, 4])
    assert torch.equal(distributed.exchange(rows, order), rows[order])
    vote = distributed.Vote()
    assert [vote.largest(number) for number in (0, 15, 0)] == [0, 15, 0]  # at once


def test_a_batch_that_cannot_be_shared_is_answered_with_one_that_can() -> None:
    with pytest.raises(SettingsError, match=r"batch_size is 250, .*multiple of 4, e\.g\. 248\."):
        distributed.check_share(250, accumulate=4)


def test_a_launch_keeps_its_name_over_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distributed.launch_id() is None
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "here",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    own = distributed.launch_id()
    assert str(os.getppid()) in str(own)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert distributed.launch_id() == own
    assert distributed.is_restarted()
    monkeypatch.setenv("WORLD_SIZE", "4")  # the others are on another machine, and cannot know the same name
    assert distributed.launch_id() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-7")
    assert distributed.launch_id() == "job-7"

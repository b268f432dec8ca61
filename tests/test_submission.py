import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from crosscontext.cli import main
from crosscontext.errors import RunFolderError, SettingsError
from crosscontext.planning import PretrainSettings
from crosscontext.pretraining import pretrain
from crosscontext.run_folder import RunFolder
from crosscontext.settings import dump_yaml
from crosscontext.submission import SubmitSettings, submit
from tiny_run import assert_same, settings, state_of, timeless

TEMPLATE = Path(__file__).parents[1] / "docs" / "crosscontext.sbatch"
PATIENCE = 400.0  # seconds


def job_settings(data: Path, out: Path, **changes: Any) -> SubmitSettings:
    values = settings(data, out, device="cpu").model_dump(mode="json")
    return SubmitSettings.model_validate(
        values | {"cluster": "local", "time": "30min", "reserve": "20min"} | changes
    )


def wait_for(condition: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def said(jobs: Path, job: str | None) -> str:
    log = jobs / f"{job}_0_log.out"
    return log.read_text() if log.exists() else ""


def test_the_script_asks_for_what_the_settings_say_and_submits_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = ["--devices", "8", "--nodes", "2", "--partition", "gpu", "--time", "1h 30min", "--cores", "12"]
    assert main(["submit", "cgh_imagenet", "--data", "shapes", "--out", str(out), *options, "--print"]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#!/bin/bash\n")
    for line in (
        "nodes=2",
        "ntasks-per-node=8",
        "gpus-per-node=8",
        "partition=gpu",
        "time=90",
        "cpus-per-task=12",
    ):
        assert f"#SBATCH --{line}\n" in script
    assert "#SBATCH --requeue\n" in script
    assert not out.exists()


def test_a_reserve_that_takes_the_whole_time_is_refused(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"time is 5min, of which reserve takes 5min.*Raise --time"):
        submit(job_settings(image_folder, tmp_path / "run", time="5min", reserve="5min"))


def test_without_slurm_the_remedy_is_named(
    image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match=r"Cannot submit to slurm: .*--print"):
        submit(job_settings(image_folder, tmp_path / "run", cluster="slurm"))


def test_a_run_folder_that_is_taken_is_refused_before_anything_is_queued(
    image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is not empty"):
        submit(job_settings(image_folder, tmp_path / "run"))


@pytest.mark.slow
def test_a_job_that_is_stopped_again_and_again_ends_as_a_run_in_one_go(
    image_folder: Path, tmp_path: Path
) -> None:
    straight = pretrain(settings(image_folder, tmp_path / "straight"))
    out = tmp_path / "job"
    report = submit(job_settings(image_folder, out, stop_after="4 steps"))
    wait_for(lambda: "Exiting after successful completion" in said(report.jobs, report.job))
    text = said(report.jobs, report.job)
    assert text.count("Requeued job") == 2
    assert text.count("--resume") >= 2
    assert_same(state_of(RunFolder(out)), state_of(straight))
    assert timeless(RunFolder(out)) == timeless(straight)
    assert not RunFolder(out).stopped.exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the tasks of a job are found in /proc")
def test_a_job_that_is_preempted_saves_and_goes_on(image_folder: Path, tmp_path: Path) -> None:
    steps = 400  # enough that the signal comes before the end
    straight = pretrain(settings(image_folder, tmp_path / "straight", steps=steps))
    out = RunFolder(tmp_path / "job")
    report = submit(job_settings(image_folder, out.path, steps=steps, checkpoint_every="100%"))
    wait_for(lambda: out.metrics.exists() and len(out.metrics.read_text().splitlines()) > 2)
    controller = report.job
    (task,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)
    wait_for(lambda: "Exiting after successful completion" in said(report.jobs, report.job))
    text = said(report.jobs, report.job)
    assert "Interrupted by SIGTERM after step" in text
    assert text.count("Requeued job") == 1
    assert_same(state_of(out), state_of(straight))


def test_the_template_is_a_script(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", str(TEMPLATE)], check=True)


def test_the_options_of_the_template_exist() -> None:
    from torch.distributed.run import get_args_parser

    text = TEMPLATE.read_text()
    launch, _, pretraining = text.partition("-m crosscontext pretrain")
    launch = launch[launch.rindex("torchrun") :]
    parser: argparse.ArgumentParser = get_args_parser()
    launcher = {option for action in parser._actions for option in action.option_strings}
    found = re.findall(r"--[a-z0-9-]+", launch)
    assert {"--nnodes", "--nproc-per-node", "--max-restarts", "--rdzv-id"} <= set(found) <= launcher
    ours = re.findall(r"--[a-z0-9-]+", pretraining.partition("code=")[0])
    assert {"--out", "--time-limit"} <= set(ours)
    assert all(option[2:].replace("-", "_") in PretrainSettings.model_fields for option in ours)


@pytest.mark.slow
def test_the_template_resumes_until_the_run_is_finished(image_folder: Path, tmp_path: Path) -> None:
    straight = pretrain(settings(image_folder, tmp_path / "straight"))
    tools = tmp_path / "tools"
    tools.mkdir()
    queue = tmp_path / "queue"
    commands = {
        "srun": 'shift; exec "$@"',
        "scontrol": f'if [ "$1" = show ]; then echo localhost; else echo "$@" >> {queue}; fi',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
    }
    for name, command in commands.items():
        (tools / name).write_text(f"#!/bin/bash\n{command}\n")
        (tools / name).chmod(0o755)
    recipe, run = tmp_path / "recipe.yaml", RunFolder(tmp_path / "run")
    recipe.write_text(dump_yaml(settings(image_folder, run.path)))
    slurm = {
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "localhost",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_GPUS_ON_NODE": "1",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 86_400),
    }
    for session in range(1, 4):
        done = subprocess.run(
            [shutil.which("bash") or "bash", TEMPLATE, recipe, run.path, "--stop-after", "4 steps"],
            env={**os.environ, **slurm, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        assert queue.read_text().splitlines() == ["requeue 7"] * min(session, 2)
    assert not run.stopped.exists()
    assert_same(state_of(run), state_of(straight))

"""Images without labels → a visual backbone: the loop, to be read top to bottom.

planning, assembly, rehearsal, stepping → **pretraining** → run folder. Several processes all run this loop;
process 0 writes.
"""

import json

import torch
from torch.optim import Optimizer

from crosscontext import distributed
from crosscontext.assembly import build_method, make_loader
from crosscontext.batch_norms import average_statistics
from crosscontext.checkpoints import load_checkpoint, save_checkpoint
from crosscontext.datasets.held import hold
from crosscontext.encoders import Encoder, Preprocessing, encoder_of, save_encoder
from crosscontext.errors import StoppedEarlyError
from crosscontext.interruption import Interruption
from crosscontext.joining import joined
from crosscontext.launching import is_launch_due, launch
from crosscontext.loading import Loader
from crosscontext.machine import choose_device, describe_machine, keep_memory, share_cores
from crosscontext.methods import Method, Outcome
from crosscontext.monitor import Monitor
from crosscontext.planning import PretrainSettings, plan_of, settle
from crosscontext.rehearsal import rehearse
from crosscontext.run_folder import RunFolder, write_atomically
from crosscontext.schedules import Plan
from crosscontext.settings import dump_yaml
from crosscontext.stepping import Stepper
from crosscontext.tracking import MetricsFile, Progress, Silence, Stopwatch

__all__ = ["PretrainSettings", "pretrain"]


def pretrain(settings: PretrainSettings, progress: Progress | None = None) -> RunFolder:
    """Train a backbone, and write its run folder.

    Args:
        settings: with `resume`, those in the run's config.yaml.
        progress: is told what happens; by default nothing is shown.

    Returns:
        The run folder, with `encoder.safetensors`.

    Raises:
        SettingsError: settings contradict each other or the data.
        DataError: there are too few images that can be read.
        RunFolderError: the run folder is taken, or cannot be written.
        CheckpointError: there is nothing to resume from, or it does not fit.
        NonFiniteError: the loss is no longer a number; the last good checkpoint stays.
        StoppedEarlyError: the session has ended as asked; the run can be resumed.
        InterruptedRunError: a signal has ended the session; the run can be resumed.
        ProcessError: of several processes one was killed or hangs; the run can be resumed.
    """
    if is_launch_due(settings):
        launch(settings)
    else:
        with joined(settings.timeout_minutes):
            prepare_and_train(settings, progress if progress and distributed.is_first() else Silence())
    return RunFolder(settings.out)


def prepare_and_train(settings: PretrainSettings, progress: Progress) -> None:
    """Make everything that a run needs, new or as it was saved, and train."""
    share_cores(settings.threads)
    keep_memory()
    device = choose_device(settings.device)
    folder = RunFolder(settings.out)
    with distributed.first_goes_ahead():  # and fetches a data set that is missing, if asked to
        if distributed.is_first():
            folder.check(resume=settings.resume, overwrite=settings.overwrite)
        dataset = hold(settings.data.open().train, settings.hold_gigabytes)
    settings = settle(settings, dataset, progress.say)
    if settings.steps is None:
        settings = rehearse(settings, dataset, device, progress)
    plan = plan_of(settings, dataset)
    method = build_method(settings, plan, device)
    optimizer = settings.optimizer.build(method.student)
    loader = make_loader(settings, dataset, method, device)
    if settings.resume:
        step = load_checkpoint(folder, method, optimizer)
    else:
        step = 0
        if distributed.is_first():
            start_folder(folder, settings, device)
    distributed.require_same(method.state_dict(), f"after step {step}")
    monitor = Monitor(settings.monitor, dataset, settings.seed, settings.batch_size, settings.workers)
    train(settings, plan, loader, method, optimizer, monitor, step, folder, progress)


def train(
    settings: PretrainSettings,
    plan: Plan,
    loader: Loader,
    method: Method,
    optimizer: Optimizer,
    monitor: Monitor,
    step: int,
    folder: RunFolder,
    progress: Progress,
) -> None:
    """Run all steps from `step` on; what happens in a run happens here."""
    writes = distributed.is_first()
    metrics = MetricsFile(folder.metrics, first_step=step + 1) if writes else None
    stop = plan.total_steps
    if settings.stop_after is not None:
        stop = min(stop, step + max(plan.steps(settings.stop_after), 1))
    log_every, monitor_every, checkpoint_every = (
        max(plan.steps(duration), 1)
        for duration in (settings.log_every, settings.monitor.every, settings.checkpoint_every)
    )
    progress.start(plan.total_steps, step)
    stepper = Stepper(settings, plan, method, optimizer)
    watch = Stopwatch()

    with Interruption() as interruption:
        for batch in loader.batches(step, stop):
            watch.data_arrived()
            outcome = stepper.step(batch.views, step)
            step += 1
            watch.step_done(settings.batch_size)

            interruption.ask()
            end = step == stop or interruption.signal is not None
            scalars: dict[str, float] = {}
            if step % log_every == 0 or end:
                scalars |= distributed.mean(scalars_of(outcome)) | watch.read()
                scalars["train/lr"] = optimizer.param_groups[0]["lr"]
                write_skipped(folder, loader)
            monitored = step % monitor_every == 0 or step == plan.total_steps
            saved = step % checkpoint_every == 0 or end
            if scalars or monitored or saved:
                stepper.check()
            if monitored or saved:
                stepper.check_weights(step)
                average_statistics(method, settings.batch_norm)
                distributed.require_same(method.state_dict(), f"after step {step}")
            if monitored and writes:
                scalars |= monitor.measure(current_encoder(method, settings, step))
            if scalars and metrics is not None:
                metrics.write(step, step * settings.batch_size, scalars)
            progress.advance(step, scalars)
            if saved and writes:
                save_checkpoint(folder, method, optimizer, step)
                save_encoder(folder.encoder, current_encoder(method, settings, step))
            if end:
                distributed.meet()  # nobody leaves before the files are written
            if interruption.signal is not None:
                interruption.raise_stopped(step, folder.path)
            watch.pause_over()

    if step < plan.total_steps:
        raise StoppedEarlyError(
            f"Stopped after step {step} of {plan.total_steps}, as asked; the checkpoint is saved. "
            f"Go on with: crosscontext pretrain --out {folder.path} --resume"
        )
    if loader.skipped:
        progress.say(f"{len(loader.skipped)} unreadable images were replaced; {folder.skipped} names them")


def scalars_of(outcome: Outcome) -> dict[str, float]:
    """Name the measurements of a step as they are logged."""
    scalars = {"train/loss": outcome.loss.item()}
    for name, value in outcome.measurements.items():
        of_training = name.startswith(("loss_", "gradient_"))
        scalars[f"train/{name}" if of_training else f"health/{name}"] = value.item()
    return scalars


def current_encoder(method: Method, settings: PretrainSettings, step: int) -> Encoder:
    """Wrap the backbone as it is now; the weights are shared."""
    assert settings.image_size != "auto"
    return encoder_of(method.encoder, settings.backbone, Preprocessing.for_size(settings.image_size), step)


def start_folder(folder: RunFolder, settings: PretrainSettings, device: torch.device) -> None:
    """Make the folder that of a new run: from here on an earlier one is gone."""
    folder.claim()
    session = {"resume": False, "overwrite": False, "stop_after": None}
    config = dump_yaml(settings.model_copy(update=session))
    machine = json.dumps(describe_machine(device), indent=1)
    write_atomically(folder.config, lambda file: file.write(config.encode()))
    write_atomically(folder.environment, lambda file: file.write(machine.encode()))


def write_skipped(folder: RunFolder, loader: Loader) -> None:
    """Name the unreadable images that all processes have met so far, one JSON object a line."""
    loader.skip(distributed.union(loader.skipped))
    if (skipped := loader.skipped) and distributed.is_first():
        lines = "".join(json.dumps({"name": n, "cause": c}) + "\n" for n, c in sorted(skipped.items()))
        write_atomically(folder.skipped, lambda file: file.write(lines.encode()))

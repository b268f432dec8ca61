"""Images without labels → a visual backbone: the loop, to be read top to bottom.

planning, loading, method, optimiser → **pretraining** → run folder
"""

import json
import statistics
import time

import torch
from torch.optim import Optimizer

from crosscontext.checkpoints import load_checkpoint, save_checkpoint
from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.held import hold
from crosscontext.encoders import Encoder, Preprocessing, encoder_of, save_encoder
from crosscontext.errors import StoppedEarlyError
from crosscontext.interruption import Interruption
from crosscontext.loading import Loader
from crosscontext.machine import choose_device, describe_machine, keep_memory
from crosscontext.methods import Method, Outcome
from crosscontext.monitor import Monitor
from crosscontext.page import report_at_the_end
from crosscontext.planning import PretrainSettings, plan_of, settle
from crosscontext.run_folder import RunFolder, write_atomically
from crosscontext.schedules import Plan, steps_within
from crosscontext.settings import dump_yaml
from crosscontext.stepping import Stepper
from crosscontext.tracking import MetricsFile, Progress, Silence, Stopwatch, write_skipped
from crosscontext.winograd import train_by_winograd

__all__ = ["PretrainSettings", "pretrain"]

_REHEARSED_STEPS, _UNTIMED_STEPS = 12, 4


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
    """
    progress = progress or Silence()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    keep_memory()
    device = choose_device(settings.device)
    folder = RunFolder(settings.out)
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
        folder.claim()  # from here on an earlier run is gone
        session = {"resume": False, "overwrite": False, "stop_after": None}
        config = dump_yaml(settings.model_copy(update=session))
        machine = json.dumps(describe_machine(device), indent=1)
        write_atomically(folder.config, lambda file: file.write(config.encode()))
        write_atomically(folder.environment, lambda file: file.write(machine.encode()))
    monitor = Monitor(settings.monitor, dataset, settings.seed, settings.batch_size, settings.workers)
    train(settings, plan, loader, method, optimizer, monitor, step, folder, progress)
    if settings.report:
        report_at_the_end(folder, settings.device, settings.workers, progress.say)
    return folder


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
    metrics = MetricsFile(folder.metrics, first_step=step + 1)
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

            end = step == stop or interruption.signal is not None
            scalars: dict[str, float] = {}
            if step % log_every == 0 or end:
                scalars |= scalars_of(outcome) | watch.read()
                scalars["train/lr"] = optimizer.param_groups[0]["lr"]
                write_skipped(folder.skipped, loader.skipped)
            monitored = step % monitor_every == 0 or step == plan.total_steps
            saved = step % checkpoint_every == 0 or end
            if scalars or monitored or saved:
                stepper.check()
            if monitored or saved:
                stepper.check_weights(step)
            if monitored:
                scalars |= monitor.measure(current_encoder(method, settings, step))
            if scalars:
                metrics.write(step, step * settings.batch_size, scalars)
            progress.advance(step, scalars)
            if saved:
                save_checkpoint(folder, method, optimizer, step)
                save_encoder(folder.encoder, current_encoder(method, settings, step))
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


def build_method(settings: PretrainSettings, plan: Plan, device: torch.device) -> Method:
    """Build backbone and method, with weights that are a function of the seed."""
    torch.manual_seed(settings.seed)
    method: Method = settings.method.build(settings.backbone.build(), plan)
    method.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    if settings.winograd is True:
        train_by_winograd(method)
    return method.train()


def make_loader(settings: PretrainSettings, dataset: Dataset, method: Method, device: torch.device) -> Loader:
    """Make the loader of the views that the method takes."""
    return Loader(
        dataset,
        settings.views,
        method.view_counts,
        settings.image_size_at,
        settings.batch_size,
        settings.seed,
        settings.workers,
        device,
        method.needs_labels,
    )


def rehearse(
    settings: PretrainSettings, dataset: Dataset, device: torch.device, progress: Progress
) -> PretrainSettings:
    """Turn minutes into steps by timing a few steps, then thrown away."""
    assert settings.minutes is not None
    seconds = seconds_per_step(settings, dataset, device)
    steps = steps_within(settings.minutes, seconds)
    progress.say(f"{settings.minutes:g} minutes: {steps} steps of {seconds:.3g} s")
    return settings.model_copy(update={"minutes": None, "steps": steps})


def seconds_per_step(settings: PretrainSettings, dataset: Dataset, device: torch.device) -> float:
    """Time a few steps with views of each size that a run has, and take the mean."""
    rehearsed = settings.model_copy(update={"minutes": None, "steps": _REHEARSED_STEPS, "earlier_sizes": ()})
    sizes = (*settings.earlier_sizes, settings.image_size)
    return statistics.mean(
        _time_steps(rehearsed.model_copy(update={"image_size": size}), dataset, device) for size in sizes
    )


def _time_steps(settings: PretrainSettings, dataset: Dataset, device: torch.device) -> float:
    """Time the steps of a short run, the first ones excepted."""
    assert settings.steps is not None
    plan = plan_of(settings, dataset)
    method = build_method(settings, plan, device)
    stepper = Stepper(settings, plan, method, settings.optimizer.build(method.student))
    moments: list[float] = []
    for step, batch in enumerate(make_loader(settings, dataset, method, device).batches(0, settings.steps)):
        stepper.step(batch.views, step)
        stepper.check()  # waits for the device
        moments.append(time.perf_counter())
    return (moments[-1] - moments[_UNTIMED_STEPS]) / (len(moments) - 1 - _UNTIMED_STEPS)

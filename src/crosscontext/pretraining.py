"""Images without labels → a visual backbone: the loop, to be read top to bottom.

planning, assembly, rehearsal, stepping → **pretraining** → run folder. Several processes all run this loop;
process 0 writes.
"""

from contextlib import nullcontext

from torch.optim import Optimizer

from crosscontext import distributed
from crosscontext.assembly import build_method, make_loader
from crosscontext.batch_norms import average_statistics
from crosscontext.checkpoints import fall_back, load_checkpoint, save_checkpoint
from crosscontext.collapse import Judge
from crosscontext.datasets.held import hold
from crosscontext.encoders import Encoder, Preprocessing, encoder_of, save_encoder
from crosscontext.errors import InterruptedRunError, NonFiniteError, StoppedEarlyError
from crosscontext.extending import extend, write_settings
from crosscontext.interruption import Session, TimeLimit
from crosscontext.joining import joined
from crosscontext.launching import is_launch_due, launch
from crosscontext.loading import Loader
from crosscontext.locking import locked
from crosscontext.loggers import LoggedRun, find_loggers
from crosscontext.machine import choose_device, keep_memory, share_cores
from crosscontext.methods import Method
from crosscontext.monitor import Monitor
from crosscontext.page import report_at_the_end
from crosscontext.planning import PretrainSettings, plan_of, settle
from crosscontext.rehearsal import rehearse
from crosscontext.rollback import Rollbacks
from crosscontext.run_folder import RunFolder
from crosscontext.schedules import long_warmups
from crosscontext.settings import leaves
from crosscontext.stepping import Stepper, scalars_of
from crosscontext.telling import Telling
from crosscontext.tracking import MetricsFile, Progress, Silence, SkippedFile, Stopwatch

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
        RunFolderError: the run folder is taken, in use, or cannot be written.
        CheckpointError: there is nothing to resume from, or it does not fit.
        NonFiniteError: the loss is no longer a number; the last good checkpoint stays.
        CollapseError: all images get nearly the same features.
        ShortOfMemoryError: there is no memory for images; the last checkpoint stays.
        StoppedEarlyError: the session has ended as asked; the run can be resumed.
        InterruptedRunError: a signal has ended the session; the run can be resumed.
        ProcessError: of several processes one was killed or hangs; the run can be resumed.
    """
    limit, folder = TimeLimit(settings.time_limit), RunFolder(settings.out)
    if is_launch_due(settings):
        launch(settings)
        return folder
    is_first = distributed.is_first()
    progress = progress if progress and is_first else Silence()
    with joined(settings.timeout_minutes), locked(folder, progress.say) if is_first else nullcontext():
        try:
            prepare_and_train(settings, folder, limit, progress)
        except (StoppedEarlyError, InterruptedRunError) as error:
            if is_first:
                folder.note_stop(str(error), error.exit_code)
            raise
    if settings.report and is_first:
        report_at_the_end(folder, settings.device, settings.workers, progress.say)
    return folder


def prepare_and_train(
    settings: PretrainSettings, folder: RunFolder, limit: TimeLimit, progress: Progress
) -> None:
    """Make everything that a run needs, new or as it was saved, and train."""
    share_cores(settings.threads)
    keep_memory()
    device = choose_device(settings.device)
    writes = distributed.is_first()
    find_loggers(settings.loggers)  # an unknown one is refused before anything is changed
    with distributed.first_goes_ahead():  # and fetches a data set that is missing, if asked to
        if writes:
            folder.check(resume=settings.resume, overwrite=settings.overwrite)
            folder.sweep()
            if settings.resume:
                fall_back(folder, progress.say)
        dataset = hold(settings.data.open().train, settings.hold_gigabytes)
    settings = settle(settings, dataset, progress.say)
    if settings.steps is None:
        settings = rehearse(settings, dataset, device, progress)
    plan = plan_of(settings, dataset)
    for line in long_warmups(leaves(settings.model_dump(mode="json")), plan):
        progress.say(line)
    method = build_method(settings, plan, device)
    optimizer = settings.optimizer.build(method.student)
    loader = make_loader(settings, dataset, method, device)
    if settings.resume:
        step = load_checkpoint(folder, method, optimizer)
        if settings.extend and writes:
            extend(folder, settings, plan, step, progress.say)
        if writes and step == plan.total_steps:  # killed between the last checkpoint and the encoder of it
            save_encoder(folder.encoder, current_encoder(method, settings, step))
    else:
        step = 0
        if writes:
            folder.claim()  # from here on an earlier run is gone
            write_settings(folder, settings, device)
            save_checkpoint(folder, method, optimizer, step)  # from here on a killed run can be resumed
    distributed.require_same(method.state_dict(), f"after step {step}")
    monitor = Monitor(settings.monitor, dataset, settings.seed, settings.batch_size, settings.workers)
    rollbacks = Rollbacks(folder, settings.on_nonfinite, settings.rollbacks, progress.say)
    session = Session(plan, step, settings.stop_after, limit)
    while True:
        try:
            train(settings, loader, method, optimizer, monitor, step, folder, progress, session, rollbacks)
            return
        except NonFiniteError as error:
            rollbacks.answer(error, loader)
            step = load_checkpoint(folder, method, optimizer)


def train(
    settings: PretrainSettings,
    loader: Loader,
    method: Method,
    optimizer: Optimizer,
    monitor: Monitor,
    step: int,
    folder: RunFolder,
    progress: Progress,
    session: Session,
    rollbacks: Rollbacks,
) -> None:
    """Run all steps from `step` on; what happens in a run happens here."""
    plan, writes = session.plan, distributed.is_first()
    metrics = MetricsFile(folder.metrics, first_step=step + 1) if writes else None
    unreadable = SkippedFile(folder.skipped) if writes else None
    judge = Judge(settings.collapse, plan, metrics.kept if metrics else [], progress.say)
    logged = LoggedRun(folder.path, folder.loggers, settings.model_dump(mode="json"), step)
    kinds = find_loggers(settings.loggers) if metrics else {}
    telling = Telling(kinds, logged, metrics.told_until if metrics else 0, progress.say)
    log_every, monitor_every, checkpoint_every = (
        max(plan.steps(duration), 1)
        for duration in (settings.log_every, settings.monitor.every, settings.checkpoint_every)
    )
    progress.start(plan.total_steps, step)
    stepper = Stepper(settings, plan, method, optimizer)
    watch = Stopwatch()

    with session.interruption, telling:
        for batch in loader.batches(step, session.stop):
            watch.data_arrived()
            outcome = None if step in rollbacks.skipped else stepper.step(batch.views, step)
            step += 1
            watch.step_done(settings.batch_size)

            end = session.ends(step)
            scalars: dict[str, float] = {}
            if outcome is not None and (step % log_every == 0 or end):
                scalars |= distributed.mean(scalars_of(outcome)) | watch.read()
                scalars["train/lr"] = optimizer.param_groups[0]["lr"]
                loader.skip(distributed.union(loader.skipped))
                if unreadable is not None:
                    unreadable.add(loader.skipped)
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
            collapse = judge.collapse(step, scalars)
            if scalars and metrics is not None:
                metrics.write(step, step * settings.batch_size, scalars)
                telling.log(step, scalars)
            progress.advance(step, scalars)
            if writes and (saved or collapse is not None):
                save_checkpoint(folder, method, optimizer, step)
                save_encoder(folder.encoder, current_encoder(method, settings, step))
            if collapse is not None:
                raise collapse
            if end:
                distributed.meet()  # nobody leaves before the files are written
            watch.pause_over()
            if end:
                break

    session.close(step, folder.path)
    if loader.skipped:
        progress.say(f"{len(loader.skipped)} unreadable images were replaced; {folder.skipped} names them")


def current_encoder(method: Method, settings: PretrainSettings, step: int) -> Encoder:
    """Wrap the backbone as it is now; the weights are shared."""
    assert settings.image_size != "auto"
    seen = Preprocessing.for_size(settings.test_size or settings.image_size)
    return encoder_of(method.encoder, settings.backbone, seen, step)

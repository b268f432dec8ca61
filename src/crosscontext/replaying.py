"""A step that was not finite, once more: kept batch and checkpoint → **replaying** → its numbers.

Views are functions of seed and step, so that the way from the checkpoint to the step is the same, too.
"""

from pathlib import Path

from crosscontext.assembly import build_method, make_loader
from crosscontext.checkpoints import load_state
from crosscontext.extending import read_settings
from crosscontext.machine import choose_device
from crosscontext.planning import plan_of
from crosscontext.rollback import kept_views, read_skipped_steps
from crosscontext.run_folder import RunFolder
from crosscontext.stepping import Stepper, scalars_of


def replay(run: Path | str, step: int) -> dict[str, float]:
    """Do a step again that was kept in the folder ``nonfinite`` of a run; nothing is written.

    Args:
        run: its folder, with the data where they were.
        step: number of the step, as in the name of the file.

    Returns:
        Loss, terms and gradient norm by their names in metrics.jsonl, should they be finite this time.

    Raises:
        NonFiniteError: they are not, as before; the message names them.
        CheckpointError: there is no such step, or its files are damaged.
        SettingsError: the settings of the run cannot be read.
    """
    folder = RunFolder(Path(run))
    views = kept_views(folder.failed_batch(step))
    settings = read_settings(folder)
    device = choose_device(settings.device)
    dataset = settings.data.open().train
    plan = plan_of(settings, dataset)
    method = build_method(settings, plan, device)
    optimizer = settings.optimizer.build(method.student)
    start = load_state(folder.failed_checkpoint(step), method, optimizer)
    skipped = read_skipped_steps(folder)
    stepper = Stepper(settings, plan, method, optimizer)
    for batch in make_loader(settings, dataset, method, device).batches(start, step):
        if batch.step not in skipped:
            stepper.step(batch.views, batch.step)
    on_device = {name: [copy.to(device) for copy in copies] for name, copies in views.items()}
    outcome = stepper.step(on_device, step)
    stepper.check()
    stepper.check_weights(step + 1)
    return scalars_of(outcome)

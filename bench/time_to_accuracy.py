"""Seconds of training until k-NN on CIFAR-10 passes each mark of a ladder: a recipe of ours, lightly's MoCo.

One side: python -m bench.time_to_accuracy --side ours --recipe cgh_cifar10_fast, or --side lightly. After
each measurement a line is printed and results/time_to_accuracy/<side>.json is written, so that a crash loses
nothing and a side can be run again without the other. Both: python -m bench time_to_accuracy.

The clock stands still while accuracy is measured. On our side it runs while the images are opened, a recipe
in minutes is rehearsed and checkpoints are written. lightly's side finds its images in memory, is rehearsed
before the clock starts, and has the settings of lightly's CIFAR-10 benchmark, at a quarter of the width, with
a cosine that ends with its minutes instead of after 200 epochs: all of this in its favour.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from bench.curves import WORKERS, Clock, Judge, passing_time, read_curve
from bench.harness import (
    RESULTS,
    CannotMeasureError,
    Row,
    compare,
    describe,
    fresh,
    require,
    write_results,
)
from bench.images import cifar10, in_memory
from bench.table import write_table
from crosscontext.datasets import Dataset
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.encoders import load_encoder
from crosscontext.errors import CrossContextError
from crosscontext.layers import Layer, resolve
from crosscontext.planning import PretrainSettings
from crosscontext.pretraining import pretrain
from crosscontext.recipes import find_recipe
from crosscontext.run_folder import RunFolder
from crosscontext.settings import load_yaml
from crosscontext.tracking import Silence

RECIPE, MINUTES = "cgh_cifar10_fast", 60.0
MARKS = (40, 45, 50, 55, 60, 65, 70, 75)  # per cent
PEER_WIDTH, PEER_BATCH = 0.25, 128
COMMAND = "python -m bench time_to_accuracy"
CURVES = RESULTS / "time_to_accuracy"


class Watcher(Silence):
    """Measures the encoders that a run of ours saves, each right after it was saved.

    Args:
        folder: of the run.
        batch_size: of the run.
        judge: measures.
        clock: of the run; it stands still meanwhile.
    """

    def __init__(self, folder: RunFolder, batch_size: int, judge: Judge, clock: Clock):
        self._encoder, self._batch_size, self._judge, self._clock = folder.encoder, batch_size, judge, clock
        self._step, self._seconds, self._seen = 0, 0.0, 0

    def advance(self, step: int, scalars: Mapping[str, float]) -> None:  # noqa: ARG002 (as Progress has it)
        """One more step is done; measure what was saved after the one before, if it is time."""
        self.measure_saved(when_due=True)
        self._step, self._seconds = step, self._clock.seconds()

    def measure_saved(self, when_due: bool) -> None:
        """Measure the encoder on disk if it is new."""
        saved = self._encoder.stat().st_mtime_ns if self._encoder.exists() else 0
        if saved == self._seen:
            return
        self._seen = saved
        if self._judge.is_due(self._seconds) or not when_due:
            with self._clock.stopped():
                self._judge.measure(load_encoder(self._encoder), self._seconds, self._step * self._batch_size)


def measure(short: bool) -> list[Row]:
    """Run both sides, an hour each, with the default recipe."""
    if short:
        raise CannotMeasureError("time_to_accuracy has no short form: leave out --short, and take two hours.")
    require("lightly")
    cifar10()
    our_settings(RECIPE, "runs/bench", seed=0)  # what is missing is missed now rather than in an hour
    fresh(run_ours, recipe=RECIPE, seed=0)
    fresh(run_lightly, minutes=MINUTES, seed=0)
    return rows(CURVES)


def run_ours(recipe: str, seed: int) -> None:
    """Train with a recipe of ours, given by name or path, and leave the curve in results/time_to_accuracy."""
    with tempfile.TemporaryDirectory() as out:
        settings = our_settings(recipe, out, seed)
        train, test = cifar10_in_memory()
        conditions = {"recipe": recipe, "config": settings.model_dump(mode="json", exclude={"out"})}
        train_ours(settings, Judge(train, test, CURVES / "ours.json", conditions))


def run_lightly(minutes: float, seed: int) -> None:
    """Train lightly's MoCo for so many minutes, and leave the curve in results/time_to_accuracy."""
    require("lightly")
    train, test = cifar10_in_memory()
    conditions = {"minutes": minutes, "width": PEER_WIDTH, "seed": seed}
    train_lightly(train, minutes, seed, Judge(train, test, CURVES / "lightly.json", conditions))


def cifar10_in_memory() -> tuple[ArrayDataset, ArrayDataset]:
    """Decode the training and the test images."""
    splits = cifar10()
    assert splits.test is not None
    return in_memory(splits.train), in_memory(splits.test)


def our_settings(recipe: str, out: str, seed: int) -> PretrainSettings:
    """Read a recipe; what it says about monitoring and checkpoints gives way to our measuring."""
    path = find_recipe("pretrain", recipe)
    measuring = {
        "out": out,
        "seed": seed,
        "monitor": {"every": "100%", "images": 10},
        "report": False,
        "checkpoint_every": "1%",  # when an encoder can be measured; the writing counts as training
    }
    return resolve(PretrainSettings, [Layer(str(path), load_yaml(path)), Layer("the benchmark", measuring)])


def train_ours(settings: PretrainSettings, judge: Judge) -> None:
    """Pretrain as the command line does, measuring the encoders that are saved on the way."""
    folder, clock = RunFolder(settings.out), Clock()
    watcher = Watcher(folder, settings.batch_size, judge, clock)
    pretrain(settings, watcher)
    watcher.measure_saved(when_due=False)


def train_lightly(
    dataset: Dataset,
    minutes: float,
    seed: int,
    judge: Judge,
    width: float = PEER_WIDTH,
    batch_size: int = PEER_BATCH,
    rehearsed_steps: int = 20,
) -> None:
    """Train as lightly's CIFAR-10 benchmark does, with a cosine schedule that ends after so many minutes.

    Args:
        dataset: of the images.
        minutes: turned into steps by timing a rehearsal.
        seed: of the weights and the order of the images.
        judge: measures when it is time, and at the end.
        width: of the ResNet-18.
        batch_size: images in a step.
        rehearsed_steps: that are timed, after half as many that are not.
    """
    from bench.peers import CIFAR_BENCHMARK, LightlyMoCo, PeerEncoder, lightly_batches, lightly_cifar_views
    from bench.peers import lightly_step as step_of

    def start() -> tuple[LightlyMoCo, torch.optim.Optimizer, Iterator[list[Tensor]]]:
        torch.manual_seed(seed)
        model = LightlyMoCo(CIFAR_BENCHMARK, width).train()
        return model, model.optimizer(), lightly_batches(dataset, lightly_cifar_views(), batch_size, WORKERS)

    model, optimizer, batches = start()
    moments = []
    for views in islice(batches, rehearsed_steps // 2 + rehearsed_steps):
        step_of(model, optimizer, views)
        moments.append(time.perf_counter())
    seconds_per_step = (moments[-1] - moments[-rehearsed_steps]) / (rehearsed_steps - 1)
    total_steps = max(round(60 * minutes / seconds_per_step), 1)

    model, optimizer, batches = start()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total_steps)
    clock = Clock()
    for step, views in enumerate(islice(batches, total_steps), start=1):
        step_of(model, optimizer, views)
        schedule.step()
        if judge.is_due(seconds := clock.seconds()) or step == total_steps:
            with clock.stopped():
                judge.measure(PeerEncoder(model), seconds, step * batch_size)


def rows(curves: Path) -> list[Row]:
    """Compare the times at which both sides first passed each mark that one of them has passed.

    There is nothing to compare before both have been run.
    """
    ours, peer = (read_curve(curves / f"{side}.json") for side in ("ours", "lightly"))
    if not ours or not peer:
        return []
    return [
        compare(
            f"training until k-NN passes {mark} % on CIFAR-10",
            "s",
            passing_time(ours, mark),
            passing_time(peer, mark),
            "lightly's MoCo, ResNet-18 × 0.25",
            COMMAND,
        )
        for mark in MARKS
        if passing_time(ours, mark) or passing_time(peer, mark)
    ]


def main() -> None:
    """Run one side, and write the table from what both have left so far."""
    parser = argparse.ArgumentParser("python -m bench.time_to_accuracy")
    parser.add_argument("--side", choices=("ours", "lightly"), required=True)
    parser.add_argument("--recipe", default=RECIPE, help="name or file; for ours")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of training; for lightly")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    machine = describe()
    try:
        if options.side == "ours":
            run_ours(options.recipe, options.seed)
        else:
            run_lightly(options.minutes, options.seed)
    except (CannotMeasureError, CrossContextError) as error:
        parser.exit(1, f"{error}\n")
    write_results("time_to_accuracy", rows(CURVES), False, machine)
    write_table()


if __name__ == "__main__":
    main()

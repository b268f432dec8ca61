import math
from pathlib import Path
from typing import Any

import pytest

from crosscontext.accelerators import Machine, find_machine, known_machines
from crosscontext.errors import SettingsError
from crosscontext.memory import Memory
from crosscontext.planning import PretrainSettings
from crosscontext.scaling import Times, forecast, losses, memory_of, times_of
from crosscontext.traffic import Message, messages
from crosscontext.workload import Norm, Operation, Workload
from test_workload import small

MACHINE = Machine(
    title="round numbers",
    bfloat16_teraflops=2,
    float32_teraflops=1,
    memory_gigabytes=1,
    memory_gigabytes_per_second=100,
    processes_per_machine=4,
    link_gigabytes_per_second=10,
    network_gigabytes_per_second=1,
    cores=10,
    decoded_images_per_second=100,
    efficiency=0.5,
    bandwidth_reached=0.5,
    link_microseconds=10,
    network_microseconds=100,
    launch_microseconds=1,
    disk_gigabytes_per_second=1,
)
WORK = Workload(
    forward=(Operation(1e9, 0),),
    backward=(Operation(2e9, 0),),
    update=(Operation(0, 1e8),),
    norms=(Norm(64, True),) * 20,
    parts=1,
    gradient_bytes=10**8,
    parameter_tensors=10,
    key_bytes=1000,
    compared_bytes=(),
    teacher_view_bytes=0,
    memory_bytes=10**6,
    state_bytes=10**8,
    optimizer_bytes=10**8,
    held_bytes=10**8,
)
FEW = PretrainSettings.model_validate({"data": "shapes", "out": "run", "batch_size": 8, "steps": 10})


def changed(**changes: Any) -> Machine:
    return MACHINE.model_copy(update=changes)


def worst(machine: Machine = MACHINE, work: Workload = WORK, processes: int = 2) -> str:
    run = FEW.model_copy(update={"precision": "float32"})
    times = times_of(run, machine, work, messages(run, work, processes), processes)
    return max(losses(run, machine, work, times, processes), key=lambda loss: loss.part).what


def test_a_kernel_takes_as_long_as_its_arithmetic_or_its_memory() -> None:
    operations = (Operation(1e12, 1.0), Operation(1.0, 1e11))
    assert MACHINE.seconds(operations, "float32") == pytest.approx(2 + 2)
    assert MACHINE.seconds(operations, "bfloat16") == pytest.approx(1 + 2)


def test_a_message_waits_for_each_doubling_and_takes_the_narrowest_link() -> None:
    keys, gradients = Message("keys", "all_gather", 1, 3), Message("gradients", "all_reduce", 10**9, 1)
    assert MACHINE.sending(keys, 4) == pytest.approx(3 * 2 * 10e-6, rel=1e-3)
    assert MACHINE.sending(keys, 8) == pytest.approx(3 * (2 * 10e-6 + 100e-6), rel=1e-3)
    assert MACHINE.sending(gradients, 2) == pytest.approx(1e9 / 5e9, rel=1e-3)
    assert MACHINE.sending(gradients, 8) == pytest.approx(1.75e9 / 0.5e9, rel=1e-3)
    images = Message("images", "all_to_all", 10**9, 1)
    assert MACHINE.sending(images, 8) == pytest.approx(4 * 0.875e9 / 0.5e9, rel=1e-3)


def test_backward_hides_gradients_but_for_the_last_bucket() -> None:
    sent = [Message("gradients", "all_reduce", WORK.gradient_bytes, 1, waits=False)]
    long = WORK._replace(backward=(Operation(1e12, 0),))
    hidden, seen = (times_of(FEW, MACHINE, work, sent, 2).gradients for work in (long, WORK))
    whole = MACHINE.sending(sent[0], 2)
    assert hidden == pytest.approx(whole * 25 * 2**20 / 10**8)
    assert seen == pytest.approx(whole - 2e9 / 0.5e12)
    shared = changed(processes_without_sharing=1)
    assert times_of(FEW, shared, long, sent, 2).gradients == pytest.approx(whole)


def test_processes_that_share_cores_take_turns() -> None:
    shared = changed(processes_without_sharing=2)
    alone = times_of(FEW, shared, WORK, [], 1).compute
    assert times_of(FEW, shared, WORK, [], 2).compute == alone
    assert times_of(FEW, shared, WORK, [], 4).compute == pytest.approx(2 * alone)


def test_a_step_is_no_shorter_than_its_data() -> None:
    assert Times(1.0, 2.0, 3.0, 4.0, 5.0, data=6.0).step == 15
    assert Times(1.0, 2.0, 3.0, 4.0, 5.0, data=20.0).step == 20


def test_what_breaks_first_is_named() -> None:
    fast = changed(link_gigabytes_per_second=10_000, link_microseconds=0)
    assert worst(changed(memory_gigabytes=0.1)).startswith("memory: ")
    assert worst(changed(decoded_images_per_second=0.01)).startswith("data: ")
    assert worst(changed(link_microseconds=10_000)).startswith("BatchNorm: ")
    assert worst(changed(link_gigabytes_per_second=0.1)).startswith("gradients: ")
    many = WORK._replace(forward=(Operation(0, 0),) * 100_000)
    assert worst(fast, many) == "kernels: 4 images a process are computed sooner than the kernels are started"


def test_a_batch_that_cannot_be_shared_breaks_first() -> None:
    found = forecast(small("cgh", batch_norm="local"), MACHINE, 1000, 3)
    assert found.breaks_first == "batch: 8 images cannot be shared equally by 3"
    assert found.step_seconds is None
    assert found.remedy.startswith("--batch-size 96")
    split = forecast(small("cgh", batch_norm={"name": "split", "groups": 2}), MACHINE, 1000, 4)
    assert split.breaks_first == "BatchNorm: 2 groups cannot be shared equally by 4"
    assert split.remedy == "--batch-norm.groups 4"
    parts = forecast(small("cgh", accumulate=2), MACHINE, 1000, 2)
    assert parts.breaks_first.startswith("BatchNorm: statistics of the whole batch")


def test_a_forecast_adds_up() -> None:
    run = small("cgh", batch_norm="local")
    one, four = (forecast(run, MACHINE, 1000, count, price_per_hour=3.0) for count in (1, 4))
    assert one.sent_bytes == one.waiting_seconds == 0
    assert four.step_seconds is not None
    assert four.images_per_second == pytest.approx(8 / four.step_seconds)
    assert four.hours is not None
    assert four.hours == pytest.approx(100 * four.step_seconds / 3600)
    assert four.cost == pytest.approx(12 * four.hours)
    assert four.memory_bytes["activations"] < one.memory_bytes["activations"]
    assert four.memory_bytes["memory ring"] == one.memory_bytes["memory ring"] == 2 * 64 * 128 * 4


def test_the_memory_is_the_sum_of_its_parts() -> None:
    taken = memory_of(WORK)
    assert taken["weights"] + taken["memory ring"] == WORK.state_bytes
    assert sum(taken.values()) == pytest.approx(1.1 * 4e8)
    ring = Memory(64, {"global": 128, "hyper": 128})
    assert sum(buffer.nbytes for buffer in ring.buffers()) == 2 * 64 * 128 * 4


def test_known_machines_say_what_is_assumed() -> None:
    for name, machine in known_machines().items():
        assert find_machine(name) == machine
        assert "efficiency" in machine.assumed
        assert set(machine.assumed) | set(machine.measured) <= type(machine).model_fields.keys()
        assert machine.origins().endswith("the rest is published")


def test_an_unknown_machine_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"No machine 'a10'; there are a100, h100, rtx4090 and here: did you"
    ):
        find_machine("a10")
    incomplete = tmp_path / "mine.yaml"
    incomplete.write_text("title: mine\n")
    with pytest.raises(SettingsError, match="cores"):
        find_machine(str(incomplete))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "published"), [("bfloat16", 2470), ("float32", 938)])
def test_supervised_training_on_an_a100_is_as_fast_as_published(precision: str, published: float) -> None:
    """NVIDIA's own figures, to which the one efficiency of assets/machines.yaml was fitted."""
    run = PretrainSettings.model_validate(
        {
            **{"data": "shapes", "out": "run", "steps": 100, "batch_size": 256, "image_size": 224},
            **{"precision": precision, "method": {"name": "supervised"}},
            "backbone": {"name": "resnet", "depth": 50, "stem": "large"},
        }
    )
    found = forecast(run, find_machine("a100"), 1_281_167, 1)
    assert found.images_per_second == pytest.approx(published, rel=0.2)
    assert math.isfinite(found.images_per_second or math.inf)

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from crosscontext.errors import SettingsError
from crosscontext.machine import (
    choose_device,
    describe_machine,
    settle_compile,
    settle_precision,
    settle_winograd,
    share_cores,
    start_threads,
)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_auto_is_a_device_that_is_there() -> None:
    torch.zeros(1, device=choose_device("auto"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_an_absent_device_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(SettingsError, match=r"'cuda'.*offers cpu"):
        choose_device("cuda")


def test_several_processes_share_the_cores_and_each_wants_a_gpu_of_its_own(
    three_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_cores(None)
    assert torch.get_num_threads() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    share_cores(None)
    assert torch.get_num_threads() == max((os.cpu_count() or 1) // 64, 1)
    share_cores(2)
    assert torch.get_num_threads() == 2
    with pytest.raises(SettingsError, match="64 processes shall train on this machine, but it has 8 GPUs"):
        choose_device("auto")


def test_the_description_has_versions_and_threads() -> None:
    described = describe_machine(torch.device("cpu"))
    assert {"torch", "torchvision", "timm", "python", "device", "cores"} <= described.keys()
    assert described["threads"] == torch.get_num_threads()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the GNU C library")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    grown = []
    for kept in (False, True):
        program = f"""
import resource, torch
from crosscontext.machine import keep_memory
if {kept}: keep_memory()
for step in range(40):
    if step == 20: before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [torch.ones(12_000_000) for _ in range(2)]
    del pieces
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
        grown.append(
            int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
        )
    assert grown[1] < grown[0] / 100  # page faults


def test_what_is_said_about_precision_and_compiling_is_kept() -> None:
    cpu = torch.device("cpu")
    assert settle_precision("bfloat16", cpu) == "bfloat16"
    assert settle_precision("auto", cpu) in ("bfloat16", "float32")
    assert settle_compile(True, cpu, 1)
    assert not settle_compile("auto", cpu, 10**6)
    assert settle_compile("auto", torch.device("cuda"), 2000)
    assert not settle_compile("auto", torch.device("cuda"), 1999)
    assert not settle_compile(False, torch.device("cuda"), 10**6)
    assert settle_winograd("auto", cpu, "float32", False)
    assert not settle_winograd("auto", cpu, "float32", True)
    assert not settle_winograd("auto", cpu, "bfloat16", False)
    assert not settle_winograd("auto", torch.device("cuda"), "float32", False)
    assert not settle_winograd(False, cpu, "float32", False)


@pytest.mark.usefixtures("three_threads")
def test_started_threads_take_one_core_each_and_leave_the_others_alone() -> None:
    met = Barrier(2)

    def look() -> int:
        met.wait(timeout=10)  # so that each of the two looks
        return torch.get_num_threads()

    with start_threads(2, "worker") as pool:
        assert [looked.result() for looked in [pool.submit(look) for _ in range(2)]] == [1, 1]
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 3

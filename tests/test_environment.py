from pathlib import Path

import pytest
import torch

from crosscontext.environment import examine_environment, usable_cores

CPU = torch.device("cpu")


def test_the_machine_is_described(tmp_path: Path) -> None:
    found = examine_environment(CPU, tmp_path)
    assert str(found.machine["torch"]).startswith(torch.__version__.partition("+")[0])
    assert found.machine["device"] == "cpu"
    assert 1 <= found.usable_cores == usable_cores() <= int(found.machine["cores"])
    assert 0 < found.free_gigabytes <= found.memory_gigabytes
    assert found.disk_gigabytes >= 0
    assert found.instructions == torch.backends.cpu.get_cpu_capability()


def test_the_disk_is_that_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    there = examine_environment(CPU, tmp_path).disk_gigabytes
    later = examine_environment(CPU, tmp_path / "runs" / "mine").disk_gigabytes
    assert later == pytest.approx(there, abs=1)
    assert list(tmp_path.iterdir()) == []


def test_variables_that_matter_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SOMETHING_ELSE", "secret")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    found = examine_environment(CPU, tmp_path).variables
    assert found["OMP_NUM_THREADS"] == "3"
    assert "MKL_NUM_THREADS" not in found
    assert "SOMETHING_ELSE" not in found


def test_extras_are_those_of_the_package_without_those_for_developers(tmp_path: Path) -> None:
    extras = {extra.name: extra for extra in examine_environment(CPU, tmp_path).extras}
    assert "detect" in extras
    assert not {"dev", "bench", "docs"} & extras.keys()
    assert [name for name, extra in extras.items() if not extra.purpose] == []
    assert extras["detect"].purpose == "evaluate --tasks detect"
    assert set(extras["detect"].missing) <= {"pycocotools"}

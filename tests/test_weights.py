import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from crosscontext.errors import CheckpointError
from crosscontext.weights import load_exactly, read_weights


def network(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_safetensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    weights = network().state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    assert same(read_weights(tmp_path / "weights.safetensors"), weights)


@pytest.mark.parametrize("under", [None, "state_dict", "model"])
def test_a_pytorch_file_may_hold_the_weights_itself_or_under_a_usual_name(
    tmp_path: Path, under: str | None
) -> None:
    weights = network().state_dict()
    torch.save({under: weights, "epoch": 3} if under else weights, tmp_path / "weights.pth")
    assert same(read_weights(tmp_path / "weights.pth"), weights)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no weights file .*absent\.pth"):
        read_weights(tmp_path / "absent.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("kept", [0, 7, 300])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, kept: int) -> None:
    file = tmp_path / name
    weights = network().state_dict()
    save_file(weights, file) if file.suffix == ".safetensors" else torch.save(weights, file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(
        CheckpointError, match=f"{name} cannot be read as weights: .*Give a .safetensors file"
    ):
        read_weights(file)


def test_a_file_that_needs_code_to_be_unpickled_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        read_weights(tmp_path / "module.pth")


class Trap:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("content", [Trap(), {"state_dict": {"fc": Trap()}}], ids=["whole", "inside"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["trap.pt", "trap.ckpt", "trap.safetensors"])
def test_a_trap_does_not_spring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, zipped: bool, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, name, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=f"{name} cannot be read as weights"):
        read_weights(Path(name))
    assert not Path("pwned").exists()


def test_a_file_that_would_grow_in_memory_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(2**20)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    with pytest.raises(
        CheckpointError, match=r"bomb.pt cannot be read as weights: its \d+ bytes would become"
    ):
        read_weights(tmp_path / "bomb.pt")


@pytest.mark.parametrize("content", [{"epoch": 3}, {}, torch.zeros(3), [torch.zeros(3)]], ids=repr)
def test_a_file_without_named_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth holds no named tensors"):
        read_weights(tmp_path / "other.pth")


def test_weights_that_fit_are_all_loaded() -> None:
    source, target = network(), network()
    load_exactly(target, source.state_dict(), "a test")
    assert same(target.state_dict(), source.state_dict())


def test_weights_that_do_not_fit_are_listed_and_nothing_is_loaded() -> None:
    module = network()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    weights = network(width=4).state_dict()
    del weights["0.bias"], weights["1.bias"]
    weights["9.gain"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        load_exactly(module, weights, "old.pth")
    message = str(caught.value)
    assert "old.pth are those of another architecture" in message
    assert "missing: 0.bias, 1.bias;" in message
    assert "left over: 9.gain;" in message
    assert "0.weight (4, 2) instead of (3, 2)" in message
    assert same(module.state_dict(), before)


def test_of_many_keys_that_do_not_fit_some_are_named_and_the_rest_is_counted() -> None:
    weights = {f"layer{number:02}": torch.zeros(1) for number in range(20)}
    with pytest.raises(CheckpointError, match=r"left over: layer00, .*, layer07 and 12 more"):
        load_exactly(nn.Identity(), weights, "many.pth")

import pytest
import torch

from crosscontext.errors import SettingsError
from crosscontext.machine import choose_device, describe_machine


def test_auto_is_a_device_that_is_there() -> None:
    torch.zeros(1, device=choose_device("auto"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_an_absent_device_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(SettingsError, match=r"'cuda'.*offers cpu"):
        choose_device("cuda")


def test_the_description_has_versions_and_threads() -> None:
    described = describe_machine(torch.device("cpu"))
    assert {"torch", "torchvision", "timm", "python", "device", "cores"} <= described.keys()
    assert described["threads"] == torch.get_num_threads()

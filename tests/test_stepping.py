import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from crosscontext.assembly import build_method
from crosscontext.errors import NonFiniteError
from crosscontext.methods import Method
from crosscontext.planning import PretrainSettings
from crosscontext.schedules import Plan
from crosscontext.stepping import Stepper

BATCH, STEPS = 12, 6


def stepper(waits: bool | None = None, **changes: Any) -> tuple[Stepper, Method]:
    settings = PretrainSettings.model_validate(
        {
            "data": "shapes",
            "out": Path("unused"),
            "steps": STEPS,
            "batch_size": BATCH,
            "image_size": 16,
            "backbone": {"name": "resnet", "depth": 10, "width": 0.125, "stem": "small"},
            "method": {"name": "cgh", "memory": {"slots": 30}, "momentum": 0.99},
            "optimizer": {"warmup": "0%"},
        }
        | changes
    )
    plan = Plan(120, BATCH, STEPS)
    method = build_method(settings, plan, torch.device("cpu"))
    return Stepper(settings, plan, method, settings.optimizer.build(method.student), waits), method


def views(step: int, num_strong: int = 1) -> dict[str, list[Tensor]]:
    generator = torch.Generator().manual_seed(step)
    weak, strong, other = torch.randn(3, BATCH, 3, 16, 16, generator=generator)
    return {"weak": [weak], "strong": [strong, other][:num_strong]}


def losses(made: Stepper) -> list[float]:
    return [made.step(views(step), step).loss.item() for step in range(STEPS)]


def test_on_the_cpu_a_loss_that_is_no_number_never_reaches_the_weights() -> None:
    made, method = stepper()
    made.step(views(0), 0)
    before = [p.clone() for p in method.student.parameters()]
    poisoned = {name: [view.clone() for view in copies] for name, copies in views(1).items()}
    poisoned["strong"][0][3, 0, 0, 0] = torch.nan
    with pytest.raises(
        NonFiniteError, match=r"At step 1 these are not finite: loss nan, .*gradient_norm nan"
    ):
        made.step(poisoned, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, method.student.parameters(), strict=True))


def test_where_a_step_does_not_wait_the_check_names_the_first_bad_step() -> None:
    made, _ = stepper(waits=False)
    made.step(views(0), 0)
    made.check()
    for step in (1, 2, 3):
        bad = views(step)
        if step == 2:
            bad["strong"][0][:] = torch.inf
        made.step(bad, step)
    with pytest.raises(NonFiniteError, match="At step 2 these are not finite"):
        made.check()
    with pytest.raises(NonFiniteError, match="After step 4 these are not finite: student"):
        made.check_weights(4)


class _HostReads(TorchDispatchMode):
    """Counts what makes the host wait for a device: values read, and sizes that depend on values."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in self.NAMES:
            self.seen.append(name)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("name", ["cgh", "moco", "ressl"])
def test_a_step_never_makes_the_host_wait(name: str) -> None:
    made, _ = stepper(waits=False, method={"name": name, "memory": {"slots": 30}, "momentum": 0.99})
    num_strong = 2 if name == "moco" else 1
    made.step(views(0, num_strong), 0)
    with _HostReads() as reads:
        for step in range(1, 4):
            made.step(views(step, num_strong), step)
    assert reads.seen == []
    with reads:
        made.check()
    assert reads.seen  # it would have been noticed


def test_in_bfloat16_the_networks_are_rounded_and_the_rest_is_not() -> None:
    memory = {"slots": 30, "start": "random"}
    same = {"name": "cgh", "memory": memory, "momentum": 0.99, "warmup": "0%"}
    made, method = stepper(precision="bfloat16", method=same)
    seen: dict[str, torch.dtype] = {}
    heads = dict(method.student.named_modules())
    heads["heads.global.project"].register_forward_hook(lambda _, __, rows: seen.update(projected=rows.dtype))
    outcome = made.step(views(0), 0)
    assert seen == {"projected": torch.bfloat16}
    assert {key.dtype for key in outcome.keys.values()} == {torch.float32}
    assert outcome.loss.dtype == torch.float32
    assert {p.dtype for p in method.parameters()} == {torch.float32}
    for keys in outcome.keys.values():
        torch.testing.assert_close(keys.norm(dim=1), torch.ones(BATCH), atol=1e-6, rtol=0)
    exact, _ = stepper(method=same)
    assert outcome.loss.item() == pytest.approx(exact.step(views(0), 0).loss.item(), rel=0.02)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on CPUs")
def test_compiled_networks_train_alike_and_keep_their_names() -> None:
    compiled, method = stepper(compile=True)
    plain, its_method = stepper(compile=False)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-3)
    assert method.state_dict().keys() == its_method.state_dict().keys()

"""CGH gives the numbers of the authors' public implementation: pure loss, and four complete steps."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from agreement import assert_agrees
from crosscontext.backbones import ResNetSettings
from crosscontext.contexts import ContextSettings
from crosscontext.memory import MemorySettings
from crosscontext.methods.cgh import CGH, CGHSettings
from crosscontext.methods.contract import Outcome
from crosscontext.optimizers import OptimizerSettings
from crosscontext.schedules import Plan

SMALL = Path(__file__).parent.parent / "reference"
COMPLETE = (
    Path(os.environ.get("CROSSCONTEXT_REFERENCE_DIR", SMALL.parents[2] / "shared" / "reference"))
    / "cgh_resnet18_cifar.json"
)
LOSS = load_file(SMALL / "loss_only.safetensors")
LOSS_CASES = json.loads((SMALL / "loss_only.json").read_text())["cases"]
CONTEXTS = {"global": "", "hyper": "_hyper"}  # our name → suffix of the reference's names


class Lookup(nn.Module):
    """Stands for a network, as in the reference: embeddings are given instead of computed."""

    def __init__(self, embeddings: dict[str, Tensor], local: list[Tensor]):
        super().__init__()
        self.embeddings, self.local = embeddings, local
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, _: Tensor, only: set[str] | None = None) -> dict[str, Tensor]:
        return {"global": torch.cat(self.local)} if only else self.embeddings


def loss_case(case: dict[str, Any], dtype: torch.dtype) -> tuple[CGH, dict[str, Tensor]]:
    prefix = f"case{case['case']}."
    stored = {
        name.removeprefix(prefix): value.to(dtype) if value.is_floating_point() else value
        for name, value in LOSS.items()
        if name.startswith(prefix)
    }
    batch, steps_per_epoch = case["B"], case["iterations_per_epoch"]
    settings = CGHSettings(
        temperature_teacher_hyper=case["temp_t"],
        temperature_student_hyper=case["temp_s"],
        temperature_contrast=case["T"],
        warmup=f"{case['warm_up_loss']} epochs",
        centring="sum" if case["norm_center"] else "none",
        memory=MemorySettings(slots=case["K"], start="random"),
        momentum=0.99,
        local_views=case["n_local"],
        contexts=ContextSettings(global_width=case["dim"], hyper_width=case["hyper_dim"]),
    )
    plan = Plan(batch * steps_per_epoch, batch, total_steps=20 * steps_per_epoch)
    method = CGH(settings, ResNetSettings(width=0.125, stem="small").build(), plan).to(dtype)
    # float64 values were recomputed from the stored float32 unit rows, float32 ones from the raw projections
    unit = {
        name: stored[name].detach() if dtype == torch.float64 else F.normalize(stored[f"{name}_raw"], dim=1)
        for name in ("q", "q_hyper", "k", "k_hyper")
    }
    local = [
        stored[f"local.{i}"] if dtype == torch.float64 else F.normalize(stored[f"local_raw.{i}"], dim=1)
        for i in range(case["n_local"])
    ]
    student = {name: unit[f"q{suffix}"].requires_grad_() for name, suffix in CONTEXTS.items()}
    teacher = {name: unit[f"k{suffix}"] for name, suffix in CONTEXTS.items()}
    method.student = Lookup(student, [rows.requires_grad_() for rows in local])  # type: ignore[assignment]
    method.teacher.network = Lookup(teacher, [])
    method.memory.pushed += case["queue_ptr"]
    for name, suffix in CONTEXTS.items():
        method.memory.get_buffer(name).copy_(stored[f"queue{suffix}"].T)
        if case["norm_center"]:
            method.get_buffer(f"centre_{name}").copy_(stored[f"center{suffix}"][0])
    return method, stored


def loss_outcome(case: dict[str, Any], method: CGH, dtype: torch.dtype) -> Outcome:
    image = torch.zeros(case["B"], 3, 2, 2, dtype=dtype)
    views = {"weak": [image], "strong": [image], "local": [image] * case["n_local"]}
    outcome: Outcome = method(views, case["epoch"] * case["iterations_per_epoch"] + case["iteration"])
    return outcome


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("case", LOSS_CASES, ids=lambda case: f"case{case['case']}")
def test_pure_loss_agrees_with_the_authors(
    case: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    method, stored = loss_case(case, dtype)
    outcome = loss_outcome(case, method, dtype)
    suffix = "_f64" if dtype == torch.float64 else ""
    contrast, hyper_from_global, global_from_hyper = stored[f"terms{suffix}"]
    if dtype == torch.float32 and case["case"] == 4:
        tolerance = 1e-5  # saturated softmax: the reference's own float32 terms are 5.4e-6 from float64
    expected = {
        "loss_hyper_from_global": hyper_from_global,
        "loss_global_from_hyper": global_from_hyper,
        "loss": stored[f"total{suffix}"][0],
    }
    if case["warmup"]:
        expected["loss_contrast"] = contrast
    ours = {**outcome.measurements, "loss": outcome.loss}
    assert ("loss_contrast" in ours) == case["warmup"]
    for name, term in expected.items():
        assert_agrees(ours[name], term, name, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("case", LOSS_CASES, ids=lambda case: f"case{case['case']}")
def test_gradients_at_the_embeddings_agree_with_the_authors(case: dict[str, Any]) -> None:
    method, stored = loss_case(case, torch.float32)
    loss_outcome(case, method, torch.float32).loss.backward()
    assert isinstance(method.student, Lookup)
    ours = [*method.student.embeddings.values(), *method.student.local]
    theirs = [stored["grad_q"], stored["grad_q_hyper"]]
    theirs += [stored[f"grad_local.{i}"] for i in range(case["n_local"])]
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine.grad is not None
        assert_agrees(mine.grad, reference, "gradient", atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("case", LOSS_CASES, ids=lambda case: f"case{case['case']}")
def test_memory_and_centres_advance_as_the_authors_do(case: dict[str, Any]) -> None:
    method, stored = loss_case(case, torch.float32)
    method.after_step(loss_outcome(case, method, torch.float32))
    assert method.memory.pointer == stored["new_queue_ptr"].item() == stored["new_queue_hyper_ptr"].item()
    for name, suffix in CONTEXTS.items():
        torch.testing.assert_close(
            method.memory.slots(name).T, stored[f"new_queue{suffix}"], atol=1e-6, rtol=0
        )
        if case["norm_center"]:
            centre = method.get_buffer(f"centre_{name}")
            torch.testing.assert_close(centre, stored[f"new_center{suffix}"][0], atol=2e-6, rtol=0)


def our_name(theirs: str) -> str | None:
    """Name in our student of a parameter of the reference; None for the one that its forward never uses."""
    if theirs == "hypercols_proj.scale":
        return None
    for old, new in (
        ("encoder.fc.", "heads.global.project."),
        ("encoder.", "backbone.model."),
        ("hypercols_proj.reg_conv.", "heads.hyper.mix."),
        ("hypercols_proj.projector.", "heads.hyper.project."),
    ):
        if theirs.startswith(old):
            return theirs.replace(old, new, 1)
    raise AssertionError(theirs)


def digest(tensor: Tensor) -> Tensor:
    values = tensor.detach().double().flatten()
    first = F.pad(values[:8], (0, 8 - len(values[:8])))
    spread = values.std(correction=0)
    return torch.cat([torch.stack([values.mean(), spread, values.norm()]), first])


FLOAT32_TOLERANCES = {"embedding": 2e-5, "term": 5e-5, "queue": 2e-5, "student": 2e-5, "teacher": 2e-6}
AFTER_A_FLIP = 50.0  # the reference's advice: one flipped mask moves later embeddings by up to about 1e-3


class PublishedTraining:
    """The authors' four steps, in one precision: our method, started from their weights and memories."""

    def __init__(self, dtype: torch.dtype):
        self.about = json.loads(COMPLETE.read_text())
        self.stored = load_file(COMPLETE.with_suffix(".safetensors"))
        self.dtype = dtype
        published = self.about["hyper_parameters"]
        settings = CGHSettings(
            warmup=f"{published['warm_up_loss']} epochs",
            memory=MemorySettings(slots=published["K"], start="random"),
            momentum=published["m"],
            temperature_contrast=published["T"],
            contexts=ContextSettings(
                global_width=published["dim"],
                hyper_width=published["hyper_dim"],
                hidden_width=published["hid_dim"],
            ),
        )
        batch, self.num_steps = published["batch_size"], published["steps"]
        plan = Plan(batch * published["iterations_per_epoch"], batch, self.num_steps)
        self.method = settings.build(ResNetSettings(stem="small").build(), plan).to(dtype).train()
        self.names = {theirs: our_name(theirs) for theirs in self.about["param_names"]}
        for network in (self.method.student, self.method.teacher.network):
            parameters = dict(network.named_parameters())
            assert parameters.keys() == {name for name in self.names.values() if name}
            for theirs, ours in self.names.items():
                if ours:
                    parameters[ours].data.copy_(self.stored[f"init.{theirs}"])
        for name, suffix in CONTEXTS.items():
            self.method.memory.get_buffer(name).copy_(self.stored[f"init.queue{suffix}"].T)
        self.optimizer = OptimizerSettings(
            weight_decay=published["optimiser"]["weight_decay"], decay_norms_and_biases=True
        ).build(self.method.student)
        for group in self.optimizer.param_groups:
            group["lr"] = published["optimiser"]["lr"]
        self.embedded: dict[str, Tensor] = {}  # by the student, in the newest step
        self.masks: list[Tensor] = []  # where the student's ReLUs let values through, in the newest step
        self.method.student.register_forward_hook(lambda _, __, rows: self.embedded.update(rows))
        for module in self.method.student.modules():
            if isinstance(module, nn.ReLU):
                module.register_forward_hook(lambda _, __, output: self.masks.append(output > 0))

    def expected(self, name: str) -> Tensor:
        return self.stored[f"f64.{name}" if self.dtype == torch.float64 else name]

    def loss(self, step: int) -> Outcome:
        self.masks.clear()
        weak, strong = (
            self.stored[f"step{step}.images_{who}"].to(self.dtype) for who in ("teacher", "student")
        )
        outcome: Outcome = self.method({"weak": [weak], "strong": [strong], "local": []}, step)
        return outcome

    def descend(self, step: int, outcome: Outcome) -> None:
        """Step, whose gradients stay; the stored teacher was moved before the last student step."""
        self.optimizer.zero_grad()
        outcome.loss.backward()
        self.optimizer.step()
        if step < self.num_steps - 1:
            self.method.after_step(outcome)
        else:
            self.method.memory.push(outcome.keys)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """How many threads add up a sum decides its last bit, and so whether a ReLU flips."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(
    not COMPLETE.exists(),
    reason="26 MB, not in the repository; CROSSCONTEXT_REFERENCE_DIR names the folder of the training case",
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_four_training_steps_agree_with_the_authors(dtype: torch.dtype) -> None:
    double = dtype == torch.float64
    training = PublishedTraining(dtype)
    exact = None if double else PublishedTraining(torch.float64)
    method, names, expected = training.method, training.names, training.expected
    widened = 1.0

    def check(ours: Tensor, name: str, tolerance: float) -> None:
        assert_agrees(ours, expected(name), name, atol=1e-10 if double else tolerance * widened)

    for step in range(training.num_steps):
        at, tolerance = f"step{step}.", FLOAT32_TOLERANCES
        before = {name: method.memory.slots(name).clone() for name in CONTEXTS}
        outcome = training.loss(step)
        for name, suffix in CONTEXTS.items():
            ours = training.embedded[name]
            check(ours, f"{at}q{suffix}", tolerance["embedding"])
            check(ours @ before[name].T, f"{at}logits_q{suffix}", tolerance["embedding"])
            keys = outcome.keys[name]
            check(keys, f"{at}k{suffix}", tolerance["embedding"])
            check(keys @ before[name].T, f"{at}logits_k{suffix}", tolerance["embedding"])
        terms = outcome.measurements
        contrast = terms.get("loss_contrast", torch.zeros((), dtype=dtype))
        our_terms = torch.stack([contrast, terms["loss_hyper_from_global"], terms["loss_global_from_hyper"]])
        check(our_terms, f"{at}terms", tolerance["term"])
        check(outcome.loss[None], f"{at}total", tolerance["term"])
        if exact is not None:
            exact.descend(step, exact.loss(step))
            pairs = zip(training.masks, exact.masks, strict=True)
            flipped = sum((mine != theirs).sum().item() for mine, theirs in pairs)
            print(f"{at}masks: {flipped} ReLUs differ from float64")
            widened = AFTER_A_FLIP if flipped else widened  # the loss is continuous there, its gradient not
        training.descend(step, outcome)
        parameters = dict(method.student.named_parameters())
        for row, theirs in enumerate(training.about["param_names"]):
            if (ours_name := names[theirs]) is not None:
                gradient = parameters[ours_name].grad
                assert gradient is not None
                norm = gradient.double().norm().item()
                wanted = expected("grad_norms")[step, row].item()
                rel = 1e-9 if double else 5e-3 * widened
                assert norm == pytest.approx(wanted, rel=rel, abs=1e-10), theirs

    for name, suffix in CONTEXTS.items():
        check(method.memory.slots(name).T, f"final.queue{suffix}", FLOAT32_TOLERANCES["queue"])
    assert method.memory.pointer == training.stored["final.queue_ptr"].item()
    for who, network in (("student", method.student), ("teacher", method.teacher.network)):
        parameters, buffers = dict(network.named_parameters()), dict(network.named_buffers())
        for row, theirs in enumerate(training.about["param_names"]):
            if (ours_name := names[theirs]) is not None:
                wanted_digest = expected(f"final.{who}.param_digest")[row]
                torch.testing.assert_close(
                    digest(parameters[ours_name]),
                    wanted_digest,
                    atol=1e-10 if double else 5e-5 * widened,
                    rtol=0,
                )
        for theirs in [n for n in training.stored if n.startswith(f"final.{who}.param.")]:
            ours_name = our_name(theirs.removeprefix(f"final.{who}.param."))
            assert ours_name is not None
            wide = 1e-4 if theirs.endswith("encoder.conv1.weight") else FLOAT32_TOLERANCES[who]
            check(parameters[ours_name], theirs, wide)
        for row, theirs in enumerate(training.about["buffer_names"]):
            ours_name = our_name(theirs)
            assert ours_name is not None
            if double:
                wanted_digest = expected(f"final.{who}.buffer_digest")[row]
                torch.testing.assert_close(digest(buffers[ours_name]), wanted_digest, atol=1e-10, rtol=1e-12)
        for theirs in [n for n in training.stored if n.startswith(f"final.{who}.buffer.")]:
            ours_name = our_name(theirs.removeprefix(f"final.{who}.buffer."))
            assert ours_name is not None
            variance = 1e-3 if who == "student" else 5e-5
            check(buffers[ours_name], theirs, variance if theirs.endswith("var") else 2e-5)

"""What each method makes of its views: its loss is that of the paper, of the right embeddings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms.v2.functional import normalize

import naive
from crosscontext.encoders import load_encoder
from crosscontext.errors import CheckpointError, SettingsError
from crosscontext.heads import ProjectionSettings
from crosscontext.memory import MemorySettings
from crosscontext.methods import (
    BarlowTwinsSettings,
    BYOLSettings,
    CO2Settings,
    DINOSettings,
    DistillSettings,
    Method,
    MethodSettings,
    ReSSLSettings,
    SCESettings,
    SimCGHSettings,
    SimCLRSettings,
    SimSiamSettings,
    SupervisedSettings,
    VICRegSettings,
    Views,
)
from crosscontext.methods.barlow_twins import BarlowTwins
from crosscontext.methods.byol import BYOL
from crosscontext.methods.co2 import CO2
from crosscontext.methods.dino import DINO
from crosscontext.methods.distill import Distill
from crosscontext.methods.relational import RelationalMethod
from crosscontext.methods.siamese import SiameseMethod
from crosscontext.methods.simcgh import SimCGH
from crosscontext.methods.simclr import SimCLR
from crosscontext.methods.simsiam import SimSiam
from crosscontext.methods.supervised import Supervised
from crosscontext.methods.vicreg import VICReg
from crosscontext.views import IMAGENET_MEAN, IMAGENET_STD
from small_methods import BATCH, LATE, NARROW, PLAN, SIDE, TEACHER, built, losses, train, views_of

SMALL = MemorySettings(slots=12)
THIN = ProjectionSettings(hidden_width=32, width=6)
STEP = 3


def ready(settings: MethodSettings) -> tuple[Method, Views]:
    """A method after three steps, in float64, and the views of the next one."""
    method = built(settings)
    train(method, 0, STEP)
    method.double()
    return method, views_of(method, STEP, torch.float64)


def assert_loss(method: Method, views: Views, expected: Tensor) -> None:
    loss = method(views, STEP).loss
    assert loss.item() == pytest.approx(expected.item(), rel=naive.TOLERANCE)


def unit(rows: Tensor) -> Tensor:
    return rows / rows.square().sum(dim=1, keepdim=True).sqrt()


def soft_contrast(
    target: Sequence[Tensor], student: Tensor, slots: Sequence[Tensor], temperature: float
) -> Tensor:
    return naive.cross_entropy(target, naive.relation(student, slots, temperature))


def test_simclr_is_naive_nt_xent_of_two_strong_views() -> None:
    method, views = ready(SimCLRSettings(projection=THIN, temperature=0.3))
    assert isinstance(method, SimCLR)
    first, second = (unit(method.student(view)) for view in views["strong"])
    assert_loss(method, views, naive.nt_xent(first, second, 0.3))


def among_others(rows: Tensor, slots: Tensor, temperature: float) -> list[list[Tensor]]:
    """How each image resembles the others."""
    images = range(len(rows))
    return [naive.relation(rows[b], [slots[k] for k in images if k != b], temperature) for b in images]


def test_simcgh_contrasts_in_each_context_and_crosses_relations_between_views_and_contexts() -> None:
    method, views = ready(SimCGHSettings(relation_weight=0.3, temperature_contrast=0.15))
    assert isinstance(method, SimCGH)
    first, second = (method.student(view) for view in views["strong"])
    contrast = naive.mean([naive.nt_xent(first[name], second[name], 0.15) for name in ("global", "hyper")])
    terms = []
    for source, target, sharp, soft in (("global", "hyper", 0.04, 0.08), ("hyper", "global", 0.08, 0.1)):
        for teacher, student in ((first, second), (second, first)):
            guides = among_others(teacher[source], teacher[source], sharp)
            guided = among_others(student[target], teacher[target], soft)
            terms += [naive.cross_entropy(*pair) for pair in zip(guides, guided, strict=True)]
    assert_loss(method, views, contrast + 0.3 * naive.mean(terms))


def test_simcgh_without_relations_is_simclr_in_both_contexts() -> None:
    method, views = ready(SimCGHSettings(relation_weight=0, pairs=("global->global",)))
    assert isinstance(method, SimCGH)
    first, second = (method.student(view)["global"] for view in views["strong"])
    assert_loss(method, views, naive.nt_xent(first, second, 0.2))


def test_small_views_find_their_image_among_both_full_views_of_the_batch() -> None:
    settings = SimCGHSettings(
        local_views=2, temperature_contrast=0.15, relation_weight=0, pairs=("global->global",)
    )
    method, views = ready(settings)
    assert isinstance(method, SimCGH)
    first, second = (method.student(view)["global"] for view in views["strong"])
    small = method.student(torch.cat(views["local"]))["global"]  # BatchNorm sees them together
    terms = [
        -naive.relation(row, [*keys], 0.15)[number % BATCH].log()
        for number, row in enumerate(small)
        for keys in (first, second)
    ]
    assert len(terms) == 2 * 2 * BATCH
    assert_loss(method, views, naive.nt_xent(first, second, 0.15) + naive.mean(terms))


@pytest.mark.parametrize("num_local", [0, 2])
def test_sce_teaches_each_view_the_image_itself_and_its_relations(num_local: int) -> None:
    method, views = ready(SCESettings(memory=SMALL, own_share=0.3, local_views=num_local))
    assert isinstance(method, RelationalMethod)
    keys = method.teacher(views["weak"][0])["global"]
    slots = [*method.memory.slots("global")]
    terms = []
    for view in [*views["strong"], *views.get("local", [])]:
        for key, row in zip(keys, method.student(view)["global"], strict=True):
            shares = naive.relation(key, slots, 0.05)
            target = [torch.full_like(shares[0], 0.3), *(0.7 * share for share in shares)]
            terms.append(soft_contrast(target, row, [key, *slots], 0.1))
    assert len(terms) == (1 + num_local) * BATCH
    assert_loss(method, views, naive.mean(terms))


def test_sce_without_a_share_of_its_own_is_ressl() -> None:
    same = {"temperature_teacher": 0.04, "contexts": {"hidden_norm": True}}
    sce = built(SCESettings.model_validate({**same, "own_share": 0}))
    ressl = built(ReSSLSettings.model_validate(same))
    assert losses(train(sce, 0, 4)) == losses(train(ressl, 0, 4))


def test_co2_is_info_nce_and_the_divergence_of_both_relations() -> None:
    method, views = ready(CO2Settings(memory=SMALL, consistency_weight=3, temperature_consistency=0.1))
    assert isinstance(method, CO2)
    queries = method.student(views["strong"][0])["global"]
    keys = method.teacher(views["strong"][1])["global"]
    slots = method.memory.slots("global")
    contrast = naive.mean(
        [
            -naive.relation(query, [key, *slots], 0.2)[0].log()
            for query, key in zip(queries, keys, strict=True)
        ]
    )
    divergence = naive.symmetric_divergence(keys, queries, slots, 0.1)
    assert_loss(method, views, contrast + 3 * divergence)


@pytest.mark.parametrize("own_slot", [True, False])
@pytest.mark.parametrize("num_local", [0, 2])
def test_a_distilled_student_has_the_relations_of_its_teacher(own_slot: bool, num_local: int) -> None:
    method, views = ready(
        DistillSettings(teacher=TEACHER, memory=SMALL, own_slot=own_slot, local_views=num_local)
    )
    assert isinstance(method, Distill)
    terms = []
    for name in ("strong", "local"):
        for view in views.get(name, []):
            slots = [*method.memory.slots("global" if name == "strong" else "local")]
            for key, row in zip(unit(method.teacher(view)), unit(method.student(view)), strict=True):
                choices = [key, *slots] if own_slot else slots
                terms.append(soft_contrast(naive.relation(key, choices, 0.04), row, choices, 0.1))
    assert len(terms) == (1 + num_local) * BATCH
    assert_loss(method, views, naive.mean(terms))


def test_the_memory_of_a_distilled_student_holds_the_teachers_features() -> None:
    method = built(DistillSettings(teacher=TEACHER, memory=SMALL, local_views=2))
    assert isinstance(method, Distill)
    views = views_of(method, 0)
    method.after_step(method(views, 0))
    teacher = load_encoder(TEACHER)
    for name, view in (("global", views["strong"][0]), ("local", views["local"][0])):
        torch.testing.assert_close(method.memory.slots(name), unit(teacher(view)))


def test_a_teacher_may_be_a_model_of_timm_and_sees_the_colours_that_it_knows(tmp_path: Path) -> None:
    file, name = tmp_path / "weights.safetensors", "test_resnet"
    model: Any = timm.create_model(name, num_classes=3)
    save_file(model.state_dict(), file)
    method = built(DistillSettings(teacher=file, teacher_model=name))
    assert isinstance(method, Distill)
    colours = torch.rand(2, 3, 2 * SIDE, 2 * SIDE)
    about: Any = timm.get_pretrained_cfg(name)
    assert about.mean != IMAGENET_MEAN
    features = model.eval().forward_features(normalize(colours, about.mean, about.std))
    views = normalize(colours, [*IMAGENET_MEAN], [*IMAGENET_STD])
    torch.testing.assert_close(method.teacher(views), features.mean(dim=(2, 3)))


def test_a_teacher_that_is_not_there_is_named() -> None:
    absent = TEACHER.with_name("absent.safetensors")
    with pytest.raises(CheckpointError, match=r"absent\.safetensors"):
        built(DistillSettings(teacher=absent))


def test_byol_predicts_the_teachers_embedding_of_the_other_view() -> None:
    method, views = ready(BYOLSettings(projection=THIN))
    assert isinstance(method, BYOL)
    first, second = views["strong"]
    expected = sum(
        2 + 2 * naive.negative_cosine(method.student(view), method.teacher(other))
        for view, other in ((first, second), (second, first))
    )
    assert isinstance(expected, Tensor)
    assert_loss(method, views, expected)


def test_simsiam_predicts_its_own_embedding_of_the_other_view_without_moving_it() -> None:
    method, views = ready(SimSiamSettings(projection=THIN))
    assert isinstance(method, SimSiam)
    first, second = (method.student.network(view) for view in views["strong"])
    predictions = [method.student.predict(rows) for rows in (first, second)]
    expected = (
        naive.negative_cosine(predictions[0], second.detach())
        + naive.negative_cosine(predictions[1], first.detach())
    ) / 2
    assert_loss(method, views, expected)
    weights = [*method.student.parameters()]
    ours = torch.autograd.grad(method(views, STEP).loss, weights)
    for mine, theirs in zip(ours, torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(mine, theirs, atol=naive.TOLERANCE, rtol=1e-8)


@pytest.mark.parametrize("num_local", [0, 2])
def test_dino_agrees_with_the_teacher_on_other_views(num_local: int) -> None:
    method, views = ready(DINOSettings(prototypes=9, local_views=num_local, warmup="12 steps"))
    assert isinstance(method, DINO)
    assert method.centre.any()
    strong, local = views["strong"], views.get("local", [])
    students = [method.student(view) for view in [*strong, *local]]
    teachers = [method.teacher(view) for view in strong]
    temperature = 0.04 + 0.03 * STEP / 12
    expected = naive.prototype_cross_entropy(students, teachers, method.centre, 0.1, temperature)
    assert_loss(method, views, expected)


def test_the_centre_moves_a_tenth_of_the_way_to_the_mean_of_the_teachers_logits() -> None:
    method, views = ready(DINOSettings(prototypes=9))
    assert isinstance(method, DINO)
    outcome, before = method(views, STEP), method.centre.clone()
    logits = torch.cat([method.teacher(view) for view in views["strong"]])
    method.after_step(outcome)
    torch.testing.assert_close(method.centre, 0.9 * before + 0.1 * logits.mean(dim=0))


def test_prototypes_stay_as_they_are_for_a_while() -> None:
    method = built(DINOSettings(prototypes=9, prototypes_frozen="2 steps"))
    assert isinstance(method, DINO)
    before = method.prototypes.weight.detach().clone()
    train(method, 0, 2)
    assert torch.equal(method.prototypes.weight, before)
    train(method, 2, 3)
    assert not torch.equal(method.prototypes.weight, before)


@pytest.mark.parametrize("settings", [BYOLSettings(momentum=0.9), DINOSettings(momentum=0.9)])
@pytest.mark.parametrize(("step", "momentum"), [(0, 0.9), (LATE, 0.95), (PLAN.total_steps - 1, 1.0)])
def test_the_teacher_follows_ever_more_slowly(
    settings: BYOLSettings | DINOSettings, step: int, momentum: float
) -> None:
    method = built(settings)
    assert isinstance(method, SiameseMethod)
    with torch.no_grad():
        for weight in method.student.parameters():
            weight.add_(1)
    student = dict(method.student.network.named_parameters())
    teacher = method.get_submodule("teacher.network")
    before = {name: weight.clone() for name, weight in teacher.named_parameters()}
    method.after_step(method(views_of(method, step), step))
    for name, weight in teacher.named_parameters():
        expected = momentum * before[name] + (1 - momentum) * student[name]
        torch.testing.assert_close(weight, expected, atol=1e-5, rtol=0)


def test_barlow_twins_is_its_papers_loss_of_two_strong_views() -> None:
    method, views = ready(BarlowTwinsSettings(projection=THIN, redundancy_weight=0.02))
    assert isinstance(method, BarlowTwins)
    first, second = (method.student(view) for view in views["strong"])
    assert_loss(method, views, naive.barlow_twins(first, second, 0.02))


def test_vicreg_is_its_papers_loss_of_two_strong_views() -> None:
    method, views = ready(
        VICRegSettings(projection=THIN, invariance_weight=9, variance_weight=7, covariance_weight=3)
    )
    assert isinstance(method, VICReg)
    first, second = (method.student(view) for view in views["strong"])
    assert_loss(method, views, naive.vicreg(first, second, 9, 7, 3))


def test_the_supervised_reference_is_cross_entropy_with_the_labels() -> None:
    method, views = ready(SupervisedSettings())
    assert isinstance(method, Supervised)
    logits = method.student(views["weak"][0])
    terms = [-naive.softmax(row)[label].log() for row, label in zip(logits, *views["labels"], strict=True)]
    assert_loss(method, views, naive.mean(terms))


def test_without_labels_there_is_no_supervised_training() -> None:
    with pytest.raises(SettingsError, match=r"supervised, but .* no classes"):
        SupervisedSettings().build(NARROW.build(), PLAN._replace(num_classes=0))

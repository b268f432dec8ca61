import io
import math
from typing import Any, get_args

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from crosscontext.memory import MemorySettings
from crosscontext.methods import (
    BYOLSettings,
    CGHSettings,
    DINOSettings,
    DistillSettings,
    Method,
    MethodSettings,
    MoCoSettings,
    ReSSLSettings,
    SCESettings,
    SimCGHSettings,
)
from crosscontext.methods.crossing import Pair
from crosscontext.methods.moco import MoCo
from crosscontext.methods.momentum import MomentumSettings
from crosscontext.optimizers import OptimizerSettings
from crosscontext.weights import load_exactly
from small_methods import BATCH, LATE, TEACHER, WARM, built, losses, train, views_of

REQUIRED: dict[object, dict[str, Any]] = {DistillSettings: {"teacher": TEACHER}}
"""What has no default."""

MEMBERS: list[MethodSettings] = [
    member(**REQUIRED.get(member, {})) for member in get_args(get_args(MethodSettings)[0])
]
WITH_MEMORY = [settings for settings in MEMBERS if isinstance(settings, MomentumSettings | DistillSettings)]
PAIRS: tuple[Pair, ...] = get_args(Pair)
ABLATIONS: list[MethodSettings] = [
    *(CGHSettings(pairs=(pair,)) for pair in PAIRS),
    CGHSettings(pairs=PAIRS),
    CGHSettings(centring="mean"),
    CGHSettings(centring="sum"),
    CGHSettings(local_views=2),
    CGHSettings(contrast_kept=0.25),
    CGHSettings(own_share=0.5, keep="teacher"),
    CGHSettings(memory=MemorySettings(start="random")),
    SimCGHSettings(pairs=PAIRS),
    SimCGHSettings(pairs=("hyper->hyper",)),
    SimCGHSettings(local_views=2),
    ReSSLSettings(local_views=2),
    MoCoSettings(memory=MemorySettings(slots=20)),
    SCESettings(local_views=2, own_share=0.2),
    DistillSettings(teacher=TEACHER, local_views=2),
    DistillSettings(teacher=TEACHER, own_slot=False),
    BYOLSettings(keep="teacher"),
    DINOSettings(local_views=2, keep="student"),
]


def name_of(settings: MethodSettings) -> str:
    changed = settings.model_dump(exclude_defaults=True, exclude={"teacher"})
    return " ".join([settings.name, *(f"{key}={value}" for key, value in changed.items())])


every_method = pytest.mark.parametrize("settings", [*MEMBERS, *ABLATIONS], ids=name_of)


def beside_student(method: Method) -> dict[str, object]:
    """State that only `after_step` may change; a teacher's batch statistics are its own affair."""
    return {
        name: value.clone() if isinstance(value, Tensor) else dict(value)
        for name, value in method.state_dict().items()
        if not name.startswith("student.") and "running_" not in name and "num_batches" not in name
    }


def changed(before: dict[str, object], after: dict[str, object]) -> set[str]:
    assert before.keys() == after.keys()
    return {
        name
        for name, value in before.items()
        if not (torch.equal(value, new) if isinstance(new := after[name], Tensor) else value == new)  # type: ignore[arg-type]  # both are of the same type
    }


@every_method
def test_the_loss_is_a_finite_scalar_and_measurements_carry_no_gradient(settings: MethodSettings) -> None:
    for outcome in train(built(settings), 0, 3):
        assert outcome.loss.shape == ()
        assert torch.isfinite(outcome.loss)
        assert outcome.loss.requires_grad
        for name, value in outcome.measurements.items():
            assert name.startswith(("loss_", "relation_entropy_"))
            assert value.shape == ()
            assert torch.isfinite(value)
            assert not value.requires_grad
        for keys in outcome.keys.values():
            assert len(keys) == (1 if settings.name == "dino" else BATCH)  # DINO needs the mean alone
            assert not keys.requires_grad


@every_method
@pytest.mark.parametrize("step", [WARM, LATE])
def test_gradients_reach_all_of_the_student_that_the_loss_sees_and_nothing_else(
    settings: MethodSettings, step: int
) -> None:
    method = built(settings)
    train(method, 0, 2)
    method.student.zero_grad()
    method(views_of(method, step), step).loss.backward()
    unseen: set[str] = set()
    if isinstance(settings, CGHSettings) and step == LATE and not settings.contrast_kept:
        taught = {pair.split("->")[1] for pair in settings.pairs}
        unseen = {f"heads.{context}." for context in {"global", "hyper"} - taught}
    for name, parameter in method.student.named_parameters():
        if name.startswith(tuple(unseen)):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
    students = {id(parameter) for parameter in method.student.parameters()}
    others = [parameter for parameter in method.parameters() if id(parameter) not in students]
    assert bool(others) == hasattr(method, "teacher")
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in others)


@every_method
def test_forward_changes_neither_teacher_nor_memory_and_after_step_changes_both(
    settings: MethodSettings,
) -> None:
    method = built(settings)
    start = LATE if settings.name == "dino" else 0  # its prototypes are frozen at first
    train(method, start, start + 8)  # branches that start at zero leave student and teacher nearly alike
    before = beside_student(method)
    outcome = method(views_of(method, start + 8), start + 8)
    outcome.loss.backward()
    assert changed(before, beside_student(method)) == set()
    method.after_step(outcome)
    moved = changed(before, beside_student(method))
    frozen = "teacher." if settings.name == "distill" else "nothing"
    assert moved == {name for name in before if not name.startswith(frozen)}


@every_method
def test_after_step_leaves_the_student_alone(settings: MethodSettings) -> None:
    method = built(settings)
    outcome = method(views_of(method, 0), 0)
    before = {name: value.clone() for name, value in method.student.state_dict().items()}
    method.after_step(outcome)
    assert all(torch.equal(value, before[name]) for name, value in method.student.state_dict().items())


@every_method
def test_the_state_survives_a_file_and_training_goes_on_bitwise(settings: MethodSettings) -> None:
    method, restored = built(settings), built(settings, seed=1)
    train(method, 0, 2)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    load_exactly(restored, torch.load(file, weights_only=True), "the test")
    assert losses(train(restored, 2, 4)) == losses(train(method, 2, 4))


@every_method
def test_training_is_a_function_of_the_seed(settings: MethodSettings) -> None:
    one, again, other = (losses(train(built(settings, seed), 0, 2)) for seed in (0, 0, 1))
    assert one == again
    assert one != other


def halved(rows: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    return rows.bfloat16() if isinstance(rows, Tensor) else {n: row.bfloat16() for n, row in rows.items()}


@every_method
def test_embeddings_of_half_precision_are_compared_in_full(settings: MethodSettings) -> None:
    method = built(settings)
    train(method, 0, 3)
    views = views_of(method, WARM)
    full = method(views, WARM).loss
    for name, network in method.named_modules():
        if name in ("student", "student.predict", "teacher"):  # as autocast leaves them
            network.register_forward_hook(lambda _, __, rows: halved(rows))
    outcome = method(views, WARM)
    assert outcome.loss.dtype == torch.float32
    torch.testing.assert_close(outcome.loss, full, rtol=0.02, atol=0)
    method.after_step(outcome)
    for state in beside_student(method).values():
        assert not isinstance(state, Tensor) or state.dtype == torch.float32


@pytest.mark.parametrize("settings", MEMBERS, ids=name_of)
def test_the_encoder_is_the_backbone_that_is_trained_or_by_dino_its_average(settings: MethodSettings) -> None:
    method = built(settings)
    kept = method.networks[1] if settings.name == "dino" else method.student
    assert method.encoder in [*kept.modules()]


@pytest.mark.parametrize("settings", WITH_MEMORY, ids=name_of)
def test_an_empty_memory_teaches_nothing(settings: MethodSettings) -> None:
    method = built(settings)
    for step in (0, WARM, LATE):
        outcome = method(views_of(method, step), step)
        assert outcome.loss == 0
    outcome.loss.backward()
    assert not any(p.grad is not None and p.grad.any() for p in method.student.parameters())


@pytest.mark.parametrize("settings", MEMBERS, ids=name_of)
def test_a_plain_name_stands_for_default_settings(settings: MethodSettings) -> None:
    adapter: TypeAdapter[MethodSettings] = TypeAdapter(MethodSettings)
    required = REQUIRED.get(type(settings))
    assert (
        adapter.validate_python({"name": settings.name, **required} if required else settings.name)
        == settings
    )


@pytest.mark.parametrize("settings", MEMBERS, ids=name_of)
def test_auto_is_settled_by_the_size_of_the_set(settings: MethodSettings) -> None:
    settled = settings.resolve(1_281_167)
    if isinstance(settled, MomentumSettings | DistillSettings):
        assert settled.memory.slots == 65_536
    if isinstance(settled, MomentumSettings):
        assert settled.momentum == 0.999
    assert "'auto'" not in str(settled.model_dump())
    assert settled.resolve(100_000) == settled


def test_cgh_with_the_pair_of_ressl_and_without_contrast_is_ressl() -> None:
    ressl = built(ReSSLSettings())
    cgh = built(CGHSettings(pairs=("global->global",), warmup="0 steps"), seed=1)
    train(ressl, 0, 3)
    load_exactly(cgh, ressl.state_dict(), "ReSSL")
    assert losses(train(cgh, 3, 7)) == losses(train(ressl, 3, 7))


def test_moco_is_naive_info_nce() -> None:
    method = built(MoCoSettings(memory=MemorySettings(slots=20)))
    assert isinstance(method, MoCo)
    train(method, 0, 3)
    method.double()
    views = views_of(method, 3, torch.float64)
    queries = method.student(views["strong"][0])["global"].tolist()
    keys, slots = (
        method.teacher(views["strong"][1])["global"].tolist(),
        method.memory.slots("global").tolist(),
    )
    assert len(slots) == 20
    loss = 0.0
    for query, key in zip(queries, keys, strict=True):
        similar = [sum(a * b for a, b in zip(query, row, strict=True)) for row in [key, *slots]]
        choices = [math.exp(cosine / 0.2) for cosine in similar]
        loss -= math.log(choices[0] / sum(choices)) / BATCH
    assert method(views, 3).loss.item() == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize("kept", [0.0, 0.25, 1.0])
def test_info_nce_fades_into_the_relations_and_a_part_of_it_may_stay(kept: float) -> None:
    method = built(CGHSettings(warmup="10 steps", contrast_kept=kept))
    train(method, 0, 3)
    for step in (0, 3, 10, 40):
        outcome = method(views_of(method, step), step)
        terms = outcome.measurements
        crossed = (terms["loss_hyper_from_global"] + terms["loss_global_from_hyper"]) / 2
        part = max(1 - step / 10, kept)
        expected = (1 - part) * crossed + part * terms.get("loss_contrast", torch.zeros(()))
        torch.testing.assert_close(outcome.loss, expected)
        assert ("loss_contrast" in terms) == (part > 0)


def test_all_pairs_count_alike() -> None:
    method = built(CGHSettings(pairs=PAIRS, warmup="0 steps"))
    outcome = train(method, 0, 3)[-1]
    terms = [value for name, value in outcome.measurements.items() if name.startswith("loss_")]
    assert len(terms) == 4
    torch.testing.assert_close(outcome.loss.detach(), torch.stack(terms).mean())


@pytest.mark.parametrize("pair", ["hyper->hyper", "global->hyper"])
def test_local_views_need_a_pair_that_teaches_the_global_context(pair: Pair) -> None:
    with pytest.raises(ValueError, match=r"local_views is 2, .*global"):
        CGHSettings(pairs=(pair,), local_views=2)


def test_local_views_without_teacher_need_a_pair_with_the_global_context() -> None:
    assert SimCGHSettings(pairs=("global->hyper",), local_views=2).local_views == 2
    with pytest.raises(ValueError, match=r"local_views is 2, .*global"):
        SimCGHSettings(pairs=("hyper->hyper",), local_views=2)


def test_twice_the_same_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="pairs"):
        CGHSettings(pairs=("global->hyper", "global->hyper"))


def test_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="pairs"):
        CGHSettings(pairs=())


def test_the_encoder_is_the_backbone_of_whom_the_settings_keep() -> None:
    chosen: list[CGHSettings | MoCoSettings | BYOLSettings | DINOSettings] = [
        CGHSettings(keep="student"),
        MoCoSettings(keep="teacher"),
        BYOLSettings(keep="teacher"),
        DINOSettings(keep="student"),
    ]
    for settings in chosen:
        method = built(settings)
        student, teacher = (network.get_submodule("backbone") for network in method.networks)
        assert method.encoder is (student if settings.keep == "student" else teacher)


def test_a_slot_of_its_own_teaches_to_tell_images_apart_before_relations_do() -> None:
    """A teacher to whom all images look alike has uniform relations: of them nothing can be learned."""
    margins = {}
    for own_share in (0.0, 0.5):
        settings = CGHSettings(
            own_share=own_share,
            warmup="0 steps",
            temperature_teacher_global=1e6,
            temperature_teacher_hyper=1e6,
        )
        method = built(settings)
        optimizer = OptimizerSettings().build(method.student)
        for step in range(30):
            outcome = method(views_of(method, step), step)
            optimizer.zero_grad()
            outcome.loss.backward()
            optimizer.step()
            method.after_step(outcome)
        views = views_of(method, 30)
        with torch.no_grad():
            student = method.networks[0](views["strong"][0])["global"]
        similarity = student @ method(views, 30).keys["global"].T
        margins[own_share] = (similarity.diagonal().mean() - similarity.mean()).item()
    assert margins[0.5] > 2 * abs(margins[0.0])

import pytest
import torch
from torch import Tensor, nn

from crosscontext.backbones import ResNetSettings
from crosscontext.contexts import ContextNetwork, ContextSettings
from crosscontext.teacher import FrozenTeacher, Teacher, settle_momentum

Embeddings = dict[str, Tensor]
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def student() -> ContextNetwork:
    torch.manual_seed(0)
    backbone = ResNetSettings(depth=10, width=0.125, stem="small").build()
    return ContextSettings(hidden_width=16).build(backbone, {"global", "hyper"})


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def move(module: nn.Module) -> None:
    """Change all parameters and buffers, as a training step does."""
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            value.add_(torch.ones_like(value))


def test_a_new_teacher_is_a_copy_that_shares_no_memory(student: ContextNetwork) -> None:
    teacher: Teacher[Embeddings] = Teacher(student, 0.9)
    before = state(student)
    assert all(torch.equal(value, before[name]) for name, value in teacher.network.state_dict().items())
    move(student)
    assert all(torch.equal(value, before[name]) for name, value in teacher.network.state_dict().items())


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.999])
def test_every_parameter_follows_by_the_moving_average(student: ContextNetwork, momentum: float) -> None:
    teacher: Teacher[Embeddings] = Teacher(student, momentum)
    move(student)
    before = {name: value.clone() for name, value in teacher.network.named_parameters()}
    teacher.follow(student)
    theirs = dict(student.named_parameters())
    for name, value in teacher.network.named_parameters():
        assert torch.equal(value, before[name] * momentum + theirs[name] * (1 - momentum)), name


def test_a_momentum_of_one_step_replaces_that_of_all(student: ContextNetwork) -> None:
    one: Teacher[Embeddings] = Teacher(student, 0.9)
    other: Teacher[Embeddings] = Teacher(student, 0.5)
    move(student)
    one.follow(student)
    other.follow(student, 0.9)
    assert all(torch.equal(value, state(one.network)[name]) for name, value in state(other.network).items())


def test_the_student_does_not_notice_that_it_is_followed(student: ContextNetwork) -> None:
    teacher: Teacher[Embeddings] = Teacher(student, 0.9)
    move(student)
    before = state(student)
    teacher.follow(student)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_buffers_are_not_averaged(student: ContextNetwork) -> None:
    teacher: Teacher[Embeddings] = Teacher(student, 0.9)
    before = {name: value.clone() for name, value in teacher.network.named_buffers()}
    move(student)
    teacher.follow(student)
    assert all(torch.equal(value, before[name]) for name, value in teacher.network.named_buffers())


def test_a_teacher_in_training_mode_keeps_batch_statistics_of_its_own(student: ContextNetwork) -> None:
    teacher: Teacher[Embeddings] = Teacher(student, 0.9).train()
    students = state(student)
    teacher(IMAGES)
    for name, value in teacher.network.named_buffers():
        assert not torch.equal(value, students[name]), name
        assert torch.equal(student.get_buffer(name), students[name])


def test_no_gradient_ever_enters_a_teacher(student: ContextNetwork) -> None:
    teacher: Teacher[Embeddings] = Teacher(student, 0.9)
    images = IMAGES.clone().requires_grad_()
    targets = teacher(images)
    assert not any(rows.requires_grad for rows in targets.values())
    sum((student(images)[name] * targets[name]).sum() for name in targets).backward()
    teacher.follow(student)
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(p.grad is not None and p.requires_grad for p in student.parameters())


def test_teacher_and_student_of_the_same_weights_agree(student: ContextNetwork) -> None:
    teacher: Teacher[Embeddings] = Teacher(student, 0.9)
    embeddings, targets = student(IMAGES), teacher(IMAGES)
    assert all(torch.equal(embeddings[name], targets[name]) for name in embeddings)


@pytest.mark.parametrize(
    ("num_images", "momentum"), [(1, 0.99), (50_000, 0.99), (299_999, 0.99), (300_000, 0.999)]
)
def test_auto_momentum_is_slower_for_large_sets(num_images: int, momentum: float) -> None:
    assert settle_momentum("auto", num_images) == momentum


def test_a_momentum_that_is_set_stays() -> None:
    assert settle_momentum(0.5, 10**6) == 0.5


def test_a_frozen_teacher_sees_each_image_by_itself_and_never_changes() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    teacher = FrozenTeacher(network.train()).train()
    before = state(teacher)
    rows = teacher(IMAGES)
    torch.testing.assert_close(rows[:1], teacher(IMAGES[:1]))
    assert all(torch.equal(value, before[name]) for name, value in state(teacher).items())
    assert not rows.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())

"""What the methods with a momentum teacher and a memory share: how both are set, built and moved on."""

from collections.abc import Collection
from typing import Literal, TypeVar

from torch import Tensor, nn

from crosscontext.backbones.contract import Backbone
from crosscontext.contexts import ContextName, ContextNetwork, ContextSettings
from crosscontext.memory import MemorySettings
from crosscontext.methods.contract import Method, Outcome
from crosscontext.settings import Settings
from crosscontext.teacher import Momentum, Teacher, settle_momentum

SettingsT = TypeVar("SettingsT", bound="MomentumSettings")


class MomentumSettings(Settings):
    """Settings of teacher, memory and contexts, with sizes for small sets."""

    name: str
    """Of the method."""

    memory: MemorySettings = MemorySettings()
    """Size and start of the memory."""

    momentum: Momentum = "auto"
    """Momentum of the teacher; auto: 0.99 below 300 000 images, else the published 0.999."""

    contexts: ContextSettings = ContextSettings()
    """Widths and stages of the contexts."""

    keep: Literal["student", "teacher"] = "student"
    """Whose backbone is measured and becomes the encoder; published: the student's. The teacher's is an
    average over the last steps."""

    @property
    def view_counts(self) -> dict[str, int]:
        """Copies of each named view that a step takes."""
        return {"strong": 2}

    def resolve(self: SettingsT, num_images: int) -> SettingsT:
        """Settle what is "auto" for a set of this many images."""
        return self.model_copy(
            update={
                "memory": self.memory.resolve(num_images),
                "momentum": settle_momentum(self.momentum, num_images),
            }
        )


class MomentumMethod(Method):
    """Student, teacher and memory.

    Args:
        settings: resolved.
        backbone: of the student.
        names: contexts that are embedded, compared and kept.
    """

    student: ContextNetwork

    def __init__(self, settings: MomentumSettings, backbone: Backbone, names: Collection[ContextName]):
        super().__init__()
        self.view_counts = settings.view_counts
        self._keep = settings.keep
        self.student = settings.contexts.build(backbone, names)
        self.teacher: Teacher[dict[str, Tensor]] = Teacher(self.student, settings.momentum)
        self.memory = settings.memory.build(settings.contexts.widths(names))

    @property
    def networks(self) -> list[nn.Module]:
        """Student and teacher."""
        return [self.student, self.teacher.network]

    @property
    def encoder(self) -> Backbone:
        """The backbone of the student or of the teacher, as the settings say."""
        kept = self.student if self._keep == "student" else self.teacher.network
        assert isinstance(kept, ContextNetwork)
        return kept.backbone

    def after_step(self, outcome: Outcome) -> None:
        """Push the keys, then move the teacher."""
        self.memory.push(outcome.keys)
        self.teacher.follow(self.student)

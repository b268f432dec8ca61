"""ReSSL: the teacher's relations in the global context guide the student's in the same one.

Source: Zheng et al., NeurIPS 2021, arXiv 2107.09282. CGH with the one pair global → global and no contrast.
Published: ImageNet, ResNet-50, linear 69.9 after 200 epochs, 74.7 with five crops. CIFAR-10, ResNet-18: 90.6
after 1000 epochs (solo-learn, online linear).
"""

from typing import Literal

from crosscontext.backbones.contract import Backbone
from crosscontext.methods.relational import RelationalMethod, RelationalSettings
from crosscontext.schedules import Plan


class ReSSLSettings(RelationalSettings):
    """ReSSL, with sizes for small sets."""

    name: Literal["ressl"] = "ressl"

    def build(self, backbone: Backbone, plan: Plan) -> RelationalMethod:
        """Make student, teacher and memory around a backbone; the settings are resolved."""
        return RelationalMethod(self, backbone, own_share=0.0)

import pytest
import torch
from torch import nn

from crosscontext.backbones import ResNetSettings
from crosscontext.contexts import ContextSettings
from crosscontext.optimizers import OptimizerSettings
from crosscontext.schedules import Plan

PLAN = Plan(num_images=10_240, batch_size=128, total_steps=400)


def network() -> nn.Module:
    backbone = ResNetSettings(depth=10, width=0.125, stem="small").build()
    return ContextSettings().build(backbone, {"global", "hyper"})


def test_weights_decay_and_normalisations_and_biases_do_not() -> None:
    module = network()
    decaying, others = OptimizerSettings(weight_decay=0.1).build(module).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    of_layers = {id(m.weight) for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {id(p) for p in decaying["params"]} == of_layers
    assert {id(p) for p in others["params"]} == {id(p) for p in module.parameters()} - of_layers


def test_everything_decays_where_that_is_asked_for() -> None:
    module = network()
    (group,) = OptimizerSettings(decay_norms_and_biases=True, weight_decay=0.1).build(module).param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in module.parameters()]
    assert group["weight_decay"] == 0.1


def test_frozen_parameters_are_left_out() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[0].requires_grad_(False)
    optimizer = OptimizerSettings().build(module)
    assert [p for group in optimizer.param_groups for p in group["params"]] == [
        module[1].weight,
        module[1].bias,
    ]


def test_a_step_is_sgd_with_momentum_and_decay() -> None:
    module = nn.Linear(3, 2, bias=False)
    optimizer = OptimizerSettings(learning_rate=0.5, momentum=0.9, weight_decay=0.1).build(module)
    weight, velocity = module.weight.detach().clone(), torch.zeros(2, 3)
    for _ in range(3):
        optimizer.zero_grad()
        (module.weight * 2).sum().backward()
        optimizer.step()
        velocity = 0.9 * velocity + 2 + 0.1 * weight
        weight = weight - 0.5 * velocity
    torch.testing.assert_close(module.weight.detach(), weight)


@pytest.mark.parametrize(("batch_size", "peak"), [(32, 0.05 / 8), (256, 0.05), (1024, 0.2)])
def test_the_learning_rate_grows_in_proportion_to_the_batch(batch_size: int, peak: float) -> None:
    settings = OptimizerSettings(learning_rate=0.05, warmup="10 steps")
    plan = Plan(10_240, batch_size, total_steps=400)
    assert settings.learning_rate_at(9, plan) == pytest.approx(peak)
    assert settings.learning_rate_at(10, plan) == pytest.approx(peak)


def test_the_learning_rate_warms_up_over_its_duration_and_then_falls() -> None:
    settings = OptimizerSettings(learning_rate=0.08, warmup="5%")
    rates = [settings.learning_rate_at(step, PLAN) for step in range(PLAN.total_steps)]
    assert rates[0] == pytest.approx(0.04 / 20)
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert max(rates) == rates[20] == pytest.approx(0.04)

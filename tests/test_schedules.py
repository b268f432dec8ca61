import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from crosscontext.schedules import (
    Duration,
    Plan,
    Timespan,
    long_warmups,
    rising_momentum,
    seconds_of,
    warmup_cosine,
    warmup_drops,
    warmup_fraction,
)

SCHEDULES = json.loads((Path(__file__).parent / "reference" / "schedules.json").read_text())
COSINE = [entry for entry in SCHEDULES["learning_rate"] if entry["schedule_type"] == "cos"]
PLAN = Plan(num_images=1000, batch_size=64, total_steps=300)


def place(entry: dict[str, Any]) -> tuple[int, int, int]:
    """Step, length of the warm-up and length of the run of an entry of the reference."""
    each_epoch = entry["iterations_per_epoch"]
    step = entry["epoch"] * each_epoch + entry["iteration"]
    return step, entry["warm_up"] * each_epoch, entry["num_epoch"] * each_epoch


@pytest.mark.parametrize(
    ("duration", "steps"),
    [
        ("5 epochs", 75),
        ("1 epoch", 15),
        ("0.5 epochs", 8),
        ("200 steps", 200),
        ("1 step", 1),
        ("6400 images", 100),
        ("1e4 images", 156),
        ("2.5%", 8),
        ("100 %", 300),
        ("0 steps", 0),
        ("5epochs", 75),
    ],
)
def test_durations_become_whole_steps_in_one_place(duration: str, steps: int) -> None:
    assert PLAN.steps(TypeAdapter(Duration).validate_python(duration)) == steps


@pytest.mark.parametrize("text", ["5", "epochs", "-5 steps", "5 hours", "5 Epochs", "5 epochs 3 steps", ""])
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValidationError, match=r"is not a duration. Write .*'5 epochs', '200 steps'"):
        TypeAdapter(Duration).validate_python(text)


def test_a_warmup_made_for_a_longer_run_is_named_with_a_remedy() -> None:
    plan = Plan(num_images=60_000, batch_size=256, total_steps=134)
    settings = [("optimizer.warmup", "5 epochs"), ("method.warmup", "50%"), ("steps", 134)]
    (line,) = long_warmups(settings, plan)
    assert line.startswith("optimizer.warmup is 5 epochs, 1170 steps, but the run has only 134.")
    assert "--optimizer.warmup 5%" in line


def test_the_last_partial_batch_of_an_epoch_does_not_count() -> None:
    assert Plan(127, 64, 10).steps_per_epoch == 1


@pytest.mark.parametrize("entry", [e for e in COSINE if place(e)[0] >= place(e)[1]], ids=str)
def test_the_cosine_is_that_of_the_authors(entry: dict[str, Any]) -> None:
    step, warmup_steps, total_steps = place(entry)
    factor = warmup_cosine(step, total_steps=total_steps, warmup_steps=warmup_steps)
    assert entry["base_lr"] * factor == pytest.approx(entry["lr"], rel=1e-9)


@pytest.mark.parametrize("entry", [e for e in COSINE if 0 < place(e)[0] < place(e)[1]], ids=str)
def test_the_rise_is_one_step_ahead_of_the_authors(entry: dict[str, Any]) -> None:
    step, warmup_steps, total_steps = place(entry)
    factor = warmup_cosine(step - 1, total_steps=total_steps, warmup_steps=warmup_steps)
    assert entry["base_lr"] * factor == pytest.approx(entry["lr"], rel=1e-9)


def test_the_first_step_is_not_wasted_as_that_of_the_authors_is() -> None:
    (first,) = [e for e in COSINE if place(e)[0] == 0 and e["warm_up"] and e["lr"] == 0][:1]
    _, warmup_steps, total_steps = place(first)
    assert warmup_cosine(0, total_steps=total_steps, warmup_steps=warmup_steps) == 1 / warmup_steps


def test_the_factor_rises_to_one_and_falls_to_almost_nothing_but_never_is_nothing() -> None:
    factors = [warmup_cosine(step, total_steps=300, warmup_steps=20) for step in range(300)]
    assert factors[:20] == sorted(factors[:20])
    assert factors[19] == factors[20] == 1
    assert factors[20:] == sorted(factors[20:], reverse=True)
    assert 0 < factors[-1] < 1e-4


@pytest.mark.parametrize("warmup_steps", [10, 12])
def test_a_run_may_end_within_its_warmup(warmup_steps: int) -> None:
    assert warmup_cosine(9, total_steps=10, warmup_steps=warmup_steps) == 10 / warmup_steps


@pytest.mark.parametrize("entry", SCHEDULES["loss_weights"], ids=str)
def test_the_weights_of_the_loss_terms_are_those_of_the_authors(entry: dict[str, Any]) -> None:
    each_epoch = entry["iterations_per_epoch"]
    related = warmup_fraction(
        entry["epoch"] * each_epoch + entry["iteration"], entry["warm_up_loss"] * each_epoch
    )
    assert 1 - related == pytest.approx(entry["cl"], abs=1e-15)
    assert related / 2 == pytest.approx(entry["cl_hyper"], abs=1e-15)
    assert related / 2 == pytest.approx(entry["csist"], abs=1e-15)


def test_the_factor_drops_to_a_tenth_at_each_milestone() -> None:
    factors = [warmup_drops(step, warmup_steps=4, drops=[6, 8]) for step in range(10)]
    assert factors == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert warmup_drops(0, warmup_steps=0, drops=[]) == 1


def test_a_rising_momentum_starts_as_set_is_half_way_at_half_time_and_ends_at_one() -> None:
    assert rising_momentum(0.99, 0, 300) == pytest.approx(0.99)
    assert rising_momentum(0.99, 150, 300) == pytest.approx(0.995)
    assert rising_momentum(0.99, 300, 300) == 1
    rise = [rising_momentum(0.9, step, 300) for step in range(300)]
    assert rise == sorted(rise)


@pytest.mark.parametrize(
    ("timespan", "seconds"),
    [("2h", 7200), ("90min", 5400), ("1h 30min", 5400), ("1.5 h", 5400), ("45s", 45), ("1h2min3s", 3723)],
)
def test_lengths_of_time_become_seconds(timespan: str, seconds: float) -> None:
    assert seconds_of(TypeAdapter(Timespan).validate_python(timespan)) == seconds


@pytest.mark.parametrize("text", ["", " ", "2", "2 hours", "1:30", "30min 1h", "-1h", "2 epochs"])
def test_what_is_no_length_of_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValidationError, match="'1h 30min'"):
        TypeAdapter(Timespan).validate_python(text)

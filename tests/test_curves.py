import pytest

from crosscontext.curves import Curve, curves_of, mean_curve


def line(images: int, **scalars: float) -> dict[str, int | float]:
    return {"step": images // 10, "images": images, **scalars}


def test_seconds_are_images_over_the_speed_at_which_they_went_by() -> None:
    speed = "time/images_per_second"
    lines = [
        line(100, **{"train/loss": 3.0, speed: 50.0}),
        line(150, **{"val/knn_top1": 0.25}),  # measured between two readings of the clock
        line(200, **{"train/loss": 2.0, speed: 25.0, "val/knn_top1": 0.5}),
    ]
    found = curves_of(lines)
    assert found["train/loss"] == Curve(images=(100, 200), seconds=(2.0, 6.0), values=(3.0, 2.0))
    assert found["val/knn_top1"] == Curve(images=(150, 200), seconds=(2.0, 6.0), values=(0.25, 0.5))


def test_a_scalar_that_was_never_measured_has_no_curve() -> None:
    assert list(curves_of([line(10, **{"train/loss": 1.0, "time/images_per_second": 1.0})])) == ["train/loss"]


def test_a_long_curve_has_fifty_points_that_are_means_since_the_point_before() -> None:
    lines = [line(n, **{"train/loss": float(n % 2), "time/images_per_second": 1.0}) for n in range(1, 101)]
    curve = curves_of(lines)["train/loss"]
    assert curve.images == tuple(range(2, 101, 2))
    assert curve.seconds == tuple(float(n) for n in range(2, 101, 2))
    assert set(curve.values) == {0.5}


def test_the_mean_of_runs_is_taken_where_all_have_a_point() -> None:
    one = Curve(images=(10, 20, 30), seconds=(1.0, 2.0, 3.0), values=(0.1, 0.2, 0.3))
    other = Curve(images=(10, 30), seconds=(3.0, 5.0), values=(0.3, 0.5))
    mean = mean_curve([one, other])
    assert (mean.images, mean.seconds) == ((10, 30), (2.0, 4.0))
    assert mean.values == pytest.approx((0.2, 0.4))

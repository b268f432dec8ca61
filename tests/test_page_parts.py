from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from crosscontext.page_parts import contests_of, curves_of, last_of, rise_of, score_rows
from crosscontext.results import pack
from handmade import PROTOCOL, score

METRICS: list[dict[str, Any]] = [
    {"step": step, "images": 100 * step, "train/loss": 10.0 / step, "val/knn_top1": 0.1 * step}
    for step in range(1, 11)
]


def test_a_curve_is_drawn_and_told_in_words() -> None:
    loss, knn = curves_of(METRICS)
    assert (loss.title, knn.title) == ("Loss", "k-NN accuracy")
    assert loss.told == "loss from 10 to 1, least 1, most 10"
    assert loss.lines == ()
    drawn = ElementTree.fromstring(loss.svg)
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) == 1
    assert "currentColor" in loss.svg


def test_terms_of_the_loss_share_a_panel_with_a_legend() -> None:
    metrics = [line | {"train/loss_contrast": 1.0} for line in METRICS]
    loss = curves_of(metrics)[0]
    assert [label for label, _ in loss.lines] == ["loss", "loss contrast"]
    assert len({colour for _, colour in loss.lines}) == 2


def test_what_has_another_scale_is_not_drawn_into_the_panel_of_rankme() -> None:
    (_, _, rank) = curves_of([line | {"health/rankme": 40.0, "health/rankme_share": 0.3} for line in METRICS])
    assert (rank.title, rank.lines) == ("RankMe", ())


def test_long_curves_are_thinned_to_means() -> None:
    metrics = [{"step": i, "images": i, "train/loss": float(i % 2)} for i in range(1, 1201)]
    (loss,) = curves_of(metrics)
    (line,) = ElementTree.fromstring(loss.svg).iter("{http://www.w3.org/2000/svg}polyline")
    assert len(line.attrib["points"].split()) == 120
    assert loss.told.startswith("loss from 0.5 to 0.5")


def test_nothing_measured_gives_no_curves() -> None:
    assert curves_of([]) == []
    assert rise_of([]) is None
    assert last_of([], "train/loss") is None


def test_the_rise_is_that_of_the_last_fifth() -> None:
    assert rise_of(METRICS) == pytest.approx(0.2)
    assert rise_of(METRICS[-1:]) is None


def test_the_latest_score_of_each_model_stands_in_the_row_the_encoder_first() -> None:
    found = [
        score(0.3, model="random", low=0.2, high=0.4),
        score(0.5),
        score(0.6, low=0.5, high=0.7, hour=4),
    ]
    (row,) = score_rows(found)
    assert row.name == "knn top1_k20"
    ours, twin = row.cells
    assert (ours.model, ours.shown, ours.at, ours.high) == ("encoder", "60.0 [50.0, 70.0]", 80, 100)
    assert (twin.model, twin.low, twin.at) == ("random", 0, 20)


def test_scores_of_other_protocols_have_rows_of_their_own() -> None:
    assert len(score_rows([score(), score(protocol={**PROTOCOL, "seed": 1})])) == 2


def resampled(mean: float) -> str:
    return pack(np.random.default_rng(0).normal(mean, 0.01, 1000).astype(np.float32))


def test_an_encoder_is_held_against_the_twin_of_its_protocol() -> None:
    twin = score(0.3, model="random", replicates=resampled(0.3))
    (contest,) = contests_of([score(0.5, replicates=resampled(0.5)), twin], "random")
    assert (contest.encoder, contest.rival) == (0.5, 0.3)
    assert contest.low == pytest.approx(contest.high) == pytest.approx(0.2)  # resampled in pairs
    assert contests_of([score(0.5, protocol={**PROTOCOL, "seed": 1}), twin], "random") == []
    assert contests_of([score(0.5, model="pixels"), twin], "random") == []

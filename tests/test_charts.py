from xml.etree import ElementTree

import pytest

from crosscontext.charts import Inks, Line, Panel, draw, ticks

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*rows: list[Panel]) -> ElementTree.Element:
    return ElementTree.fromstring(draw(rows))


def points(line: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = (pair.split(",") for pair in line.attrib["points"].split())
    return [(float(x), float(y)) for x, y in pairs]


def test_a_larger_value_stands_higher_and_a_later_one_further_right() -> None:
    panel = Panel("title", "images", [Line("a", [1.0, 2.0, 4.0], [5.0, 3.0, 9.0])])
    (line,) = drawn([panel]).iter(f"{SVG}polyline")
    (x1, y1), (x2, y2), (x3, y3) = points(line)
    assert x1 < x2 < x3
    assert y3 < y1 < y2
    assert x3 - x2 == pytest.approx(2 * (x2 - x1), abs=0.3)


def test_a_line_has_one_colour_in_all_panels_and_stands_in_the_legend_once() -> None:
    both = [Line("a<b", [0.0, 1.0], [0.0, 1.0]), Line("c", [0.0, 1.0], [1.0, 0.0])]
    root = drawn([Panel("one", "x", both), Panel("two", "y", both)], [Panel("three", "x", both[1:])])
    colours = [line.attrib["stroke"] for line in root.iter(f"{SVG}polyline")]
    assert colours[:2] == colours[2:4]
    assert colours[0] != colours[1] == colours[4]
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert (texts.count("a<b"), texts.count("c")) == (1, 1)
    assert {"one", "two", "three"} <= set(texts)


def test_lines_beyond_the_colours_are_dashed() -> None:
    lines = [Line(str(number), [0.0, 1.0], [0.0, float(number)]) for number in range(9)]
    styles = [
        (line.attrib["stroke"], line.get("stroke-dasharray", ""))
        for line in drawn([Panel("", "", lines)]).iter(f"{SVG}polyline")
    ]
    assert len(set(styles)) == 9


def test_equal_values_and_single_points_can_be_drawn() -> None:
    panel = Panel("flat", "x", [Line("a", [0.0], [7.0])])
    (line,) = drawn([panel]).iter(f"{SVG}polyline")
    assert len(points(line)) == 1


def test_an_axis_can_have_ends_of_its_own() -> None:
    steep, flat = (
        drawn([Panel("", "", [Line("a", [0.0, 1.0], [0.5, 0.6])], up)]) for up in (None, (0.0, 1.0))
    )
    (high, low), (above, below) = (
        [y for _, y in points(next(root.iter(f"{SVG}polyline")))] for root in (steep, flat)
    )
    assert above - below == pytest.approx((high - low) / 10, abs=0.3)


def test_a_page_brings_its_own_inks_and_legend() -> None:
    panel = Panel("title", "x", [Line("a", [0.0, 1.0], [0.0, 1.0])])
    text = draw([[panel]], legend=False, inks=Inks("currentColor", "var(--rule)", "none"))
    assert "white" not in text
    assert text.count("currentColor") == 1
    assert "a" not in [found.text for found in ElementTree.fromstring(text).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.0, 10.0, [0, 2, 4, 6, 8, 10]), (36.2, 45.9, [38, 40, 42, 44]), (0.0, 0.43, [0, 0.1, 0.2, 0.3, 0.4])],
)
def test_ticks_are_round_numbers(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == expected

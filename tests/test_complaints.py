import pytest

from crosscontext.errors import SettingsError
from crosscontext.layers import COMMAND_LINE, Layer, resolve
from example_settings import FlightSettings


def complaint(values: dict[str, object], origin: str = "recipe.yaml") -> str:
    with pytest.raises(SettingsError) as caught:
        resolve(FlightSettings, [Layer("base.yaml", {"out": "x"}), Layer(origin, values)])
    return str(caught.value)


def test_a_misspelt_key_is_answered_with_the_nearest_one() -> None:
    said = complaint({"bird": {"momentun": 1}})
    assert said == "Unknown key 'bird.momentun' in recipe.yaml: did you mean 'bird.momentum'?"


def test_a_misspelt_option_is_answered_as_an_option() -> None:
    assert complaint({"epoch": 1}, COMMAND_LINE) == "Unknown option --epoch: did you mean '--epochs'?"


def test_a_key_at_the_wrong_place_is_answered_with_the_right_one() -> None:
    assert complaint({"momentum": 1}).endswith("did you mean 'bird.momentum'?")


def test_a_misspelt_key_at_the_wrong_place_is_answered_with_the_right_one() -> None:
    assert complaint({"momentun": 1}).endswith("did you mean 'bird.momentum'?")


def test_a_key_of_another_member_is_said_to_be_one() -> None:
    said = complaint({"bird": {"name": "heron", "momentum": 1}})
    assert said == "Unknown key 'bird.momentum' in recipe.yaml; it belongs to another bird."


def test_a_key_like_no_other_is_answered_with_all_of_them() -> None:
    assert complaint({"nest": {"qqq": 1}}).endswith("there are nest.depth, nest.lined.")


def test_an_unknown_member_is_answered_with_the_members_and_the_nearest() -> None:
    said = complaint({"bird": "herron"})
    assert said == "Unknown bird 'herron' in recipe.yaml; there are sparrow, heron: did you mean 'heron'?"


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (
            {"epochs": "many"},
            ("epochs is 'many' in recipe.yaml", "expected a number", "Passes over the field"),
        ),
        ({"threads": "all"}, ("threads is 'all'", "expected a whole number or 'auto'")),
        ({"threads": 0}, ("threads is 0", "at least 1")),
        ({"bird": {"momentum": 1.5}}, ("bird.momentum is 1.5", "expected at most 1", "in [0, 1]")),
        ({"span": [1, 2, 3]}, ("span is [1, 2, 3]", "at most 2 values")),
        ({"span": [1, "x"]}, ("span[1] is 'x'", "expected a number")),
        ({"resume": "maybe"}, ("resume is 'maybe'", "true or false")),
        ({"bird": 3}, ("bird is 3", "expected a mapping")),
        ({"bird": {"name": "heron", "legs": 3}}, ("bird.legs is 3", "expected 1 or 2")),
        ({"flock": ["heron", "swan"]}, ("Unknown flock[1] 'swan'", "sparrow, heron")),
        ({"flock": [{"name": "heron", "hunts": []}]}, ("flock[0].hunts is []", "Whether it fishes")),
        ({"flock": [{"hunts": True}]}, ("flock[0] in recipe.yaml lacks 'name:'",)),
        ({"nest": 3}, ("nest is 3", "expected a mapping")),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(
    values: dict[str, object], parts: tuple[str, ...]
) -> None:
    said = complaint(values)
    assert "\n" not in said
    for part in parts:
        assert part in said


def test_a_list_that_is_too_short_because_of_a_wrong_member_is_one_problem() -> None:
    said = complaint({"escort": ["herron"]})
    assert said == (
        "Unknown escort[0] 'herron' in recipe.yaml; there are sparrow, heron: did you mean 'heron'?"
    )
    assert "at least 1 values" in complaint({"escort": []})


def test_a_missing_setting_is_asked_for_in_both_spellings() -> None:
    with pytest.raises(SettingsError) as caught:
        resolve(FlightSettings, [])
    assert str(caught.value) == "Missing --out (Folder of the log). Give it, or 'out:' in a recipe."


def test_each_problem_has_its_line_and_its_origin() -> None:
    layers = [Layer("low.yaml", {"epochs": "x", "span": 1}), Layer("high.yaml", {"out": "x", "span": 2})]
    with pytest.raises(SettingsError) as caught:
        resolve(FlightSettings, layers)
    first, second = str(caught.value).splitlines()
    assert "epochs is 'x' in low.yaml" in first
    assert "span is 2 in high.yaml" in second

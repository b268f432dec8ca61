from collections.abc import Mapping

from crosscontext.layers import COMMAND_LINE, Layer, changes, resolve
from example_settings import FlightSettings, HeronSettings, SparrowSettings


def flight(*values: Mapping[str, object]) -> FlightSettings:
    layers = [
        Layer("recipe.yaml", {"out": "x"}),
        *(Layer(f"{i}.yaml", each) for i, each in enumerate(values)),
    ]
    return resolve(FlightSettings, layers)


def test_later_layers_win_field_by_field() -> None:
    settings = flight({"epochs": 1, "threads": 2}, {"epochs": 3})
    assert (settings.epochs, settings.threads) == (3, 2)


def test_a_text_chooses_a_member() -> None:
    assert flight({"bird": "heron"}).bird == HeronSettings()


def test_a_field_alone_changes_the_default_member_and_keeps_its_other_values() -> None:
    assert flight({"bird": {"songs": []}}).bird == SparrowSettings(momentum=0.8, songs=())
    assert flight({"nest": {"depth": 2}}).nest.lined


def test_the_same_member_again_keeps_the_fields_of_the_layer_below() -> None:
    below = {"bird": {"name": "sparrow", "momentum": 0.5}}
    assert flight(below, {"bird": "sparrow"}).bird == SparrowSettings(momentum=0.5)


def test_another_member_drops_the_fields_of_the_former_one() -> None:
    below = {"bird": {"name": "sparrow", "momentum": 0.5}}
    assert flight(below, {"bird": "heron"}, {"bird": {"legs": 1}}).bird == HeronSettings(legs=1)


def test_a_list_replaces_the_list_below() -> None:
    assert flight({"span": [1, 2]}, {"span": [3, 4]}).span == (3, 4)


def test_another_way_to_say_the_same_replaces_what_is_below() -> None:
    settings = flight({"epochs": 3, "miles": None}, {"miles": 5})
    assert (settings.epochs, settings.miles) == (None, 5)


def test_two_ways_to_say_the_same_from_one_origin_both_stay() -> None:
    options = [Layer(COMMAND_LINE, {key: 1}) for key in ("epochs", "miles")]
    settings = resolve(FlightSettings, [Layer("recipe.yaml", {"out": "x", "epochs": 3}), *options])
    assert (settings.epochs, settings.miles) == (1, 1)


def test_changes_are_named_by_their_dotted_paths() -> None:
    before = flight({"epochs": 1})
    assert changes(before, before) == []
    assert changes(before, flight({"epochs": 1, "nest": {"depth": 2}, "bird": "heron"})) == [
        "bird",
        "nest.depth",
    ]

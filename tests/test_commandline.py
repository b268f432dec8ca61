from pathlib import Path

import pytest

from crosscontext.commandline import CommandLine, Verb, answer, help_text, options, parse
from crosscontext.errors import SettingsError
from crosscontext.layers import Layer, resolve
from crosscontext.settings import dump_yaml
from example_settings import FlightSettings, HeronSettings, SparrowSettings

FLY = Verb("crosscontext fly [OPTIONS]", "Fly.", FlightSettings, {"json": "Print JSON."})


def line(*arguments: str) -> CommandLine:
    return parse(arguments, FLY)


def flight(*arguments: str) -> FlightSettings:
    return resolve(FlightSettings, line("--out", "x", *arguments).layers)


def test_texts_become_what_the_fields_take() -> None:
    settings = flight("--epochs", "1e-3", "--threads=2", "--span", "0.5", "2")
    assert (settings.epochs, settings.threads, settings.span) == (1e-3, 2, (0.5, 2))
    assert flight("--threads", "auto").threads == "auto"
    assert flight("--out", "2024").out == Path("2024")


def test_none_takes_back_a_value() -> None:
    layers = [Layer("recipe.yaml", {"epochs": 3}), *line("--out", "x", "--epochs", "none").layers]
    assert resolve(FlightSettings, layers).epochs is None


def test_negative_numbers_are_values() -> None:
    assert flight("--span", "-1", "-.5").span == (-1, -0.5)


def test_flags_need_no_value_and_no_negates_them() -> None:
    settings = flight("--resume", "--nest.no-lined", "--bird", "heron", "--bird.no-hunts")
    assert settings.resume
    assert not settings.nest.lined
    assert settings.bird == HeronSettings(hunts=False)
    assert not flight("--resume=false").resume


def test_true_and_false_after_a_flag_are_its_value_and_other_words_are_not() -> None:
    assert not flight("--resume", "false").resume
    assert flight("--nest.no-lined", "--nest.lined", "true").nest.lined
    found = line("--resume", "RUN")
    assert (found.positionals, found.layers[0].values) == (("RUN",), {"resume": True})


def test_choice_of_a_member_and_its_fields_may_come_in_any_order() -> None:
    assert flight("--bird.legs", "1", "--bird", "heron").bird == HeronSettings(legs=1)


def test_underscores_are_hyphens() -> None:
    assert "print_config" in line("--print-config").flags
    assert "print_config" in line("--print_config").flags


def test_the_last_of_two_wins() -> None:
    assert flight("--epochs", "1", "--epochs", "2").epochs == 2


def test_lists_end_at_the_next_option_or_at_two_dashes() -> None:
    assert flight("--bird.songs", "a", "b", "--epochs", "1").bird == SparrowSettings(
        momentum=0.8, songs=("a", "b")
    )
    assert line("--flock", "heron", "--", "RUN").positionals == ("RUN",)


def test_lists_of_members_take_names_or_yaml() -> None:
    assert flight("--flock", "heron", "sparrow").flock == (HeronSettings(), SparrowSettings())
    assert flight("--flock", "[{name: heron, legs: 1}]").flock == (HeronSettings(legs=1),)


def test_flags_of_the_verb_are_no_settings() -> None:
    found = line("RUN", "--json", "-h", "--resume")
    assert found.positionals == ("RUN",)
    assert found.flags == {"json", "help"}
    assert len(found.layers) == 1


@pytest.mark.parametrize("arguments", [("--epochs",), ("--epochs", "--resume"), ("--bird.momentum",)])
def test_an_option_without_its_value_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=f"{arguments[0]} needs a value"):
        line(*arguments)


@pytest.mark.parametrize("arguments", [("--epoch", "3"), ("--bird.wings", "1", "2"), ("--bird.momentum.x",)])
def test_an_unknown_option_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=r"--epochs|Unknown option --bird.wings|bird.momentum"):
        flight(*arguments)


def test_every_listed_option_can_be_set_to_its_default() -> None:
    for option in options(FlightSettings, {"out": "x"}):
        values = {
            "bird": "sparrow",
            "flock": "[]",
            "escort": "heron",
            "out": "x",
            "epochs": "none",
            "miles": "none",
        }
        if option.path[-1] in values:
            texts = [option.name, values[option.path[-1]]]
        elif isinstance(option.default, bool):
            texts = [f"{option.name}={str(option.default).lower()}"]
        elif isinstance(option.default, tuple) and option.default:
            texts = [option.name, *(str(value) for value in option.default)]
        else:
            texts = [option.name, str(option.default)]
        assert flight(*texts) == flight(), option.name


def test_help_fits_80_columns_and_shows_docstrings_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = help_text(FLY, ()).splitlines()
    assert max(map(len, lines)) <= 80
    assert "  --out PATH              Folder of the log. [required]" in lines
    assert "  --threads INT|auto      Wings in parallel, at least 1. [auto]" in lines
    assert "  --bird.momentum NUMBER  Share of the old speed that is kept, in [0, 1]. [0.8]" in lines
    assert "bird sparrow: Sparrows are small. Others: heron." in lines
    assert "  --json                  Print JSON." in lines


def test_help_shows_the_options_of_the_chosen_member_and_values_given_so_far() -> None:
    text = help_text(FLY, line("--bird", "heron", "--bird.legs", "1").layers)
    assert "--bird.legs 1|2" in text
    assert "Legs on the ground. [1]" in text
    assert "--bird.no-hunts" in text
    assert "--bird.momentum" not in text


def test_printed_configuration_is_the_resolved_one() -> None:
    given = line("--out", "x", "--epochs", "2", "--print-config")
    assert answer(FLY, given.flags, given.layers) == dump_yaml(flight("--epochs", "2")).rstrip()


def test_nothing_asked_is_nothing_answered() -> None:
    assert answer(FLY, line("--epochs", "x").flags, ()) is None

from pathlib import Path

import pytest
from pydantic import ValidationError

from crosscontext.errors import SettingsError
from crosscontext.layers import Layer, resolve
from crosscontext.settings import AbsolutePath, Settings, dump_yaml, load_yaml
from example_settings import FlightSettings, HeronSettings, NestSettings, SparrowSettings


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_path_to_read_from_is_the_same_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NetSettings(Settings):
        file: AbsolutePath | None = None

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert NetSettings(file=Path("a/b")).file == tmp_path / "a" / "b"
    assert NetSettings(file=Path("~/b")).file == tmp_path / "home" / "b"
    assert NetSettings(file=Path("/b")).file == Path("/b")
    assert NetSettings().file is None


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("out: !!python/object/apply:os.system ['touch pwned']", "could not determine a constructor"),
        ("out: !!python/name:os.system", "could not determine a constructor"),
        ("a: &a [x]\nb: [*a, *a]", r"line 2: the alias '\*a'; write out what it stands for"),
        ("a: &a [*a]", "the alias"),
        ("? [a]\n: b\n? [a]\n: c", "unhashable key"),
        ("a: {1: b}", "line 1: the key 1 is no text; put it into quotes"),
        ("a: 2001-99-99", "no YAML of settings: ValueError: month must be"),
        ("a: !!int x", "no YAML of settings: ValueError"),
        ("a: !!timestamp x", "no YAML of settings: AttributeError"),
        ("[" * 5000, "no YAML of settings: RecursionError"),
        ("a: !!map [x]", "expected a mapping node"),
    ],
)
def test_yaml_that_is_a_trap_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, cause: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=rf"recipe\.yaml.*{cause}.*Mend"):
        load_yaml(written(tmp_path, text))
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        NestSettings().depth = 2  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    "settings",
    [
        FlightSettings(out=Path("a b/ü")),
        FlightSettings(
            out=Path("runs/none"),
            epochs=1e-5,
            threads=3,
            span=(1e16, 2.5),
            bird=HeronSettings(legs=1, hunts=False),
            flock=(SparrowSettings(songs=("null", "1e-3", "no", "a: b", "")), HeronSettings()),
        ),
    ],
)
def test_yaml_round_trip_gives_equal_settings(settings: FlightSettings, tmp_path: Path) -> None:
    path = written(tmp_path, dump_yaml(settings))
    assert resolve(FlightSettings, [Layer(str(path), load_yaml(path))]) == settings


def test_yaml_shows_paths_as_text_and_tuples_as_lists_in_one_line() -> None:
    lines = dump_yaml(FlightSettings(out=Path("x"))).splitlines()
    assert lines[0] == "out: x"
    assert "span: [0.2, 1.0]" in lines
    assert "  songs: [morning, evening]" in lines


def test_empty_yaml_has_no_settings(tmp_path: Path) -> None:
    assert load_yaml(written(tmp_path, "# nothing\n")) == {}


def test_yaml_with_a_key_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = written(tmp_path, "bird:\n  momentum: 1\n  songs: []\n  momentum: 0\n")
    with pytest.raises(SettingsError, match=r"recipe\.yaml', line 4: .*'momentum' stands twice"):
        load_yaml(path)


def test_yaml_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"recipe\.yaml', line 2"):
        load_yaml(written(tmp_path, "out: x\nspan: ]\n"))


def test_yaml_cannot_build_python_objects(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="line 1"):
        load_yaml(written(tmp_path, "out: !!python/object/apply:os.getcwd []\n"))


def test_yaml_that_is_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="key: value"):
        load_yaml(written(tmp_path, "- 1\n"))


def test_missing_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.yaml': No such file"):
        load_yaml(tmp_path / "absent.yaml")


def test_binary_file_is_refused_as_yaml(tmp_path: Path) -> None:
    path = tmp_path / "image.yaml"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(SettingsError, match="UTF-8"):
        load_yaml(path)

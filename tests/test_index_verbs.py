import json
import re
from pathlib import Path

import pytest

from conftest import paint
from crosscontext.cli import main
from small_index import small_encoder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures, an encoder, and the index of both made by the command line."""
    folder = tmp_path_factory.mktemp("place")
    for number in range(12):
        name, hue = (("red", 0), ("blue", 2))[number % 2]
        paint(folder / "pictures" / name / f"{number:02}.jpg", number, hue)
    run = small_encoder(folder / "run")
    options = ["--threads", "1", "--workers", "1"]
    data, out = str(folder / "pictures"), str(folder / "index")
    assert main(["embed", str(run), "--data", data, "--out", out, *options]) == 0
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_embed_again_says_that_nothing_is_to_do(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["embed", str(place / "run"), "--data", str(place / "pictures")]
    assert main([*arguments, "--out", str(place / "index")]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("0 images to compute, 12 are known")
    assert printed.out.startswith("12 vectors of 64 numbers in images-")
    card = json.loads(told(capsys, *arguments, "--out", str(place / "index"), "--json"))
    assert (card["images"], card["width"]) == (12, 64)


def test_search_takes_several_queries(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queries = [str(place / "pictures" / "red" / name) for name in ("00.jpg", "02.jpg")]
    lines = told(capsys, "search", str(place / "index"), *queries, "--k", "3").splitlines()
    assert [lines[0], lines[4]] == queries
    assert len(lines) == 8
    found = json.loads(told(capsys, "search", str(place / "index"), "--k", "3", "--json", *queries[:1]))
    assert [f"  {hit['similarity']:6.3f}  {hit['path']}" for hit in found["results"][0]["hits"]] == lines[1:4]


def test_the_other_verbs_print_text_json_and_pages(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index, page = str(place / "index"), place / "page.html"
    assert "count as duplicates" in told(capsys, "dedupe", index, "--threshold", "0.9999")
    assert json.loads(told(capsys, "dedupe", index, "--threshold", "0.5", "--json"))["threshold"] == 0.5
    assert "Measured on 12 images" in told(capsys, "dedupe", index)
    assert told(capsys, "outliers", index, "--top", "4", "--gallery", str(page)).count("nearest: ") == 4
    assert page.read_text().count("<img ") == 4
    examples = place / "labels.csv"
    examples.write_text("path,label\nred/00.jpg,red\nblue/01.jpg,blue\n")
    out = place / "out.csv"
    said = told(capsys, "label", index, "--examples", str(examples), "--out", str(out))
    assert "10 suggestions from 2 examples of 2 labels" in said
    assert len(out.read_text().splitlines()) == 11


def test_an_index_is_read_as_the_documentation_says(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[1] / "docs" / "image-index.md").read_text(encoding="utf-8")
    code, *_ = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(place)
    exec(code, {})
    nearest = capsys.readouterr().out.strip()
    first = str(place / "pictures" / "blue" / "01.jpg")
    found = json.loads(told(capsys, "search", "index", first, "--k", "1", "--json"))
    assert found["results"][0]["hits"][0]["path"] == nearest


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["embed"], "Missing RUN: crosscontext embed RUN --data DIR --out INDEX"),
        (["embed", "run", "--data", "x"], "Missing --out"),
        (["embed", "run", "more"], "Unexpected argument 'more'"),
        (["search"], "Missing INDEX: crosscontext search INDEX QUERY"),
        (["search", "index"], "Missing QUERY: crosscontext search INDEX QUERY"),
        (["search", "index", "--queries"], "at least 1 value"),
        (["dedupe", "index", "--threshold", "2"], "--threshold is '2'"),
        (["outliers", "index", "--k", "0"], "at least 1"),
        (["label", "index"], "Missing --examples"),
        (["label", "index", "more", "--examples", "x"], "Unexpected argument 'more'"),
    ],
)
def test_wrong_usage_is_answered(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["embed", "search", "dedupe", "outliers", "label"])
def test_help_says_what_the_verb_does_within_80_columns(
    verb: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = told(capsys, verb, "--help")
    assert shown.startswith(f"usage: crosscontext {verb} ")
    assert "--json" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_functions_and_verbs_share_their_names() -> None:
    import crosscontext
    import crosscontext.duplicates
    import crosscontext.embedding
    import crosscontext.labelling
    import crosscontext.outlying
    import crosscontext.searching

    assert crosscontext.embed is crosscontext.embedding.embed
    assert crosscontext.search is crosscontext.searching.search
    assert crosscontext.dedupe is crosscontext.duplicates.dedupe
    assert crosscontext.outliers is crosscontext.outlying.outliers
    assert crosscontext.label is crosscontext.labelling.label

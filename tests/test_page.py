import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conftest import paint
from crosscontext.cli import main
from crosscontext.errors import CheckpointError
from crosscontext.floors import LEVELS
from crosscontext.page import ReportSettings, auto_images, report
from crosscontext.run_folder import RunFolder
from crosscontext.tracking import Silence
from shown_run import page_of, scored, trained
from test_sprites import opened

PARTS = ["verdict", "trained", "scores", "map", "neighbours", "stages", "contexts", "surprises", "views"]


class Tags(HTMLParser):
    """Start tags with their attributes, and the text between them."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def run(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Trained and scored; read only."""
    folder = trained(image_folder, tmp_path_factory.mktemp("runs") / "mine")
    scored(folder)
    return folder


@pytest.fixture(scope="module")
def html(run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(run, out=tmp_path_factory.mktemp("pages") / "page.html")


@pytest.fixture
def copied(run: RunFolder, tmp_path: Path) -> RunFolder:
    """A run that a test may spoil."""
    return RunFolder(Path(shutil.copytree(run.path, tmp_path / "copy")))


def test_the_page_has_all_its_parts_once(html: str) -> None:
    identifiers = [attributes["id"] for _, attributes in Tags(html).tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    assert [attributes["id"] for attributes in Tags(html).all("section")] == PARTS


def test_the_page_needs_nothing_from_outside(html: str) -> None:
    addresses = [
        value
        for _, attributes in Tags(html).tags
        for key, value in attributes.items()
        if key in ("src", "href") and value is not None
    ]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "default-src 'none'" in html
    assert {found.split("(")[1][:5] for found in re.findall(r"url\([^)]{5}", html)} == {"data:"}


def test_every_picture_is_described_and_every_button_named(html: str) -> None:
    tags = Tags(html)
    pictures = tags.all("img")
    assert len(pictures) == 6 * (1 + 4 + 1) + 4 * (1 + 3)  # stages and hypercolumn; image and views
    assert all(picture["alt"] for picture in pictures)
    thumbnails = [button for button in tags.all("button") if button.get("class") in ("thumb", "thumb same")]
    assert len(thumbnails) > 8 * 17
    assert all(button["aria-label"] for button in thumbnails)


def test_curves_scores_and_settings_are_told(html: str) -> None:
    text = Tags(html).text
    for told in ("RankMe", "k-NN accuracy", "Entropy of the relations", "knn top1_k20", "memory:", "cgh"):
        assert told in text
    assert text.count("random") >= 1
    drawn = Tags(html).all("polyline")
    assert len(drawn) >= 8
    labels = [
        attributes["aria-label"] or "" for attributes in Tags(html).all("div") if "aria-label" in attributes
    ]
    assert any(label.startswith("Loss against images seen: loss from") for label in labels)


def test_the_verdict_rests_on_held_out_scores_where_there_are_some(html: str, copied: RunFolder) -> None:
    assert re.search(r"Untrained twin\. \d+ test images, right by k-NN", Tags(html).text)
    copied.results.unlink()
    assert re.search(
        r"Untrained twin\. Images whose class the 20 nearest of 40 name", Tags(page_of(copied)).text
    )


def test_the_map_has_every_image_and_neighbours_before_and_after(html: str) -> None:
    content = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert content is not None
    drawn = json.loads(content[1])
    assert len(drawn["names"]) == len(drawn["points"]) == len(drawn["after"]) == len(drawn["before"]) == 40
    assert sorted(drawn["names"])[0] == "blue/01.jpg"
    assert drawn["classNames"] == ["blue", "red"]
    for name, label in zip(drawn["names"], drawn["classes"], strict=True):
        assert name.startswith(drawn["classNames"][label])
    for row, neighbours in enumerate(drawn["after"]):
        assert len(neighbours) == 10
        assert row not in neighbours
    assert drawn["after"] != drawn["before"]


def test_the_same_run_gives_the_same_page_and_another_seed_another(
    run: RunFolder, tmp_path: Path, html: str
) -> None:
    assert page_of(run, out=tmp_path / "again.html") == html
    assert page_of(run, out=tmp_path / "other.html", seed=1) != html


def test_without_its_images_a_run_has_a_page_with_a_remark(run: RunFolder, tmp_path: Path) -> None:
    told: list[str] = []
    settings = {"run": run.path, "data": tmp_path / "moved", "out": tmp_path / "page.html", "threads": 1}
    html = report(ReportSettings.model_validate(settings), told.append).file.read_text()
    assert [attributes["id"] for attributes in Tags(html).all("section")] == PARTS[:3]
    (remark,) = told
    assert "does not exist" in remark
    assert "--data DIR" in remark
    assert "There are no pictures" in Tags(html).text
    assert "Spread of the features" in Tags(html).text  # as the monitor measured it


def test_other_images_can_be_given(run: RunFolder, tmp_path: Path) -> None:
    for number in range(25):
        paint(tmp_path / "others" / f"{number}<b>&amp;.jpg", number, 1)
    html = page_of(run, data=tmp_path / "others", out=tmp_path / "page.html")
    assert "Map of 25 training images" in Tags(html).text
    assert "<b>&amp;.jpg" not in html  # a name is text, whatever it looks like
    assert '"classes": null' in html
    assert "Contradicted" not in Tags(html).text


def test_too_few_images_are_told_not_shown(run: RunFolder, tmp_path: Path) -> None:
    for number in range(5):
        paint(tmp_path / "few" / f"{number}.jpg", number, 1)
    html = page_of(run, data=tmp_path / "few", out=tmp_path / "page.html")
    assert "Only 5 of 5 images can be read; 20 are needed" in Tags(html).text


def test_an_encoder_alone_is_enough_for_a_page(copied: RunFolder, image_folder: Path) -> None:
    for file in (copied.config, copied.metrics, copied.results, copied.environment):
        file.unlink()
    html = page_of(copied)
    assert "There is no config.yaml" in Tags(html).text
    assert "Map of" not in Tags(html).text
    assert "Map of 40 training images" in Tags(page_of(copied, data=image_folder)).text


def test_scores_of_other_weights_are_left_out(copied: RunFolder) -> None:
    lines = copied.results.read_text().splitlines()
    digest = next(json.loads(line) for line in lines if '"model":"encoder"' in line)["checkpoint_digest"]
    copied.results.write_text("".join(f"{line}\n".replace(digest, "0123456789abcdef") for line in lines))
    text = Tags(page_of(copied)).text
    assert "scores of other weights than these are left out" in text
    assert "test images, right by k-NN" not in text


def test_the_command_tells_the_verdict_also_as_json(
    copied: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["report", str(copied.path), "--threads", "1", "--images", "20"]
    assert main([*command, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["file"] == str(copied.report)
    assert printed["verdict"] in LEVELS
    assert {check["name"]: check["level"] for check in printed["checks"]}["Length"] == "green"
    assert printed["action"] in Tags(copied.report.read_text()).text
    assert main(command) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"verdict: {printed['verdict']}. {printed['headline']} Next: {printed['action']}"
    assert second == f"report: {copied.report}"


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no encoder"):
        page_of(RunFolder(tmp_path))


def test_views_are_shown_at_the_size_that_the_networks_saw(image_folder: Path, tmp_path: Path) -> None:
    run = trained(image_folder, tmp_path / "run", steps=1, test_size=24)
    views = [image for image in Tags(page_of(run)).all("img") if " view of " in (image["alt"] or "")]
    assert {opened(image["src"] or "").size for image in views} == {(16, 16)}


@pytest.mark.parametrize(
    ("method", "kinds"),
    [
        ({"name": "simclr"}, {"strong"}),
        ({"name": "cgh", "local_views": 1, "memory": {"slots": 30}}, {"weak", "strong", "local"}),
        ({"name": "cgh", "memory": {"slots": 30}}, {"weak", "strong"}),
    ],
)
def test_those_views_are_shown_that_the_method_takes(
    method: dict[str, object], kinds: set[str], image_folder: Path, tmp_path: Path
) -> None:
    page = page_of(trained(image_folder, tmp_path / "run", steps=1, method=method))
    texts = [image["alt"] or "" for image in Tags(page).all("img")]
    assert {text.split()[1] for text in texts if " view of " in text} == kinds


def test_pretraining_writes_the_page_unless_told_otherwise(image_folder: Path, tmp_path: Path) -> None:
    with_page = trained(image_folder, tmp_path / "with", steps=1, report=True)
    without = trained(image_folder, tmp_path / "without", steps=1)
    assert with_page.report.is_file()
    assert not without.report.exists()


def test_a_page_that_cannot_be_written_costs_a_line_not_the_run(image_folder: Path, tmp_path: Path) -> None:
    class InTheWay(Silence):
        def __init__(self) -> None:
            self.told: list[str] = []

        def say(self, line: str) -> None:
            self.told.append(line)

        def start(self, *_: object, **__: object) -> None:
            RunFolder(tmp_path / "run").report.mkdir()

    progress = InTheWay()
    folder = trained(image_folder, tmp_path / "run", progress, steps=1, report=True)
    assert folder.encoder.is_file()
    assert progress.told[-1].startswith("The run is complete, but without report.html: ")
    assert f"crosscontext report {folder.path}" in progress.told[-1]


@pytest.mark.parametrize(("speed", "expected"), [(1.0, 64), (30.0, 300), (5000.0, 1000)])
def test_a_slow_network_looks_at_fewer_images(speed: float, expected: int) -> None:
    metrics = [{"step": step, "images": step, "time/images_per_second": speed} for step in range(3)]
    assert auto_images(metrics) == expected


def test_without_measured_speed_a_few_hundred_images_are_looked_at() -> None:
    assert auto_images([]) == 256

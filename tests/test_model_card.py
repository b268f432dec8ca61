import re
import shutil
from pathlib import Path

import pytest
import yaml

from crosscontext.datasets import FolderSettings
from crosscontext.encoders import load_encoder
from crosscontext.formats import SafetensorsFormat
from crosscontext.model_card import model_card, origin_of, told
from crosscontext.parity import Difference, Parity
from crosscontext.results import append_results, read_results
from crosscontext.run_folder import RunFolder
from handed_over import NARROW, code_of, encoder, saved
from shown_run import scored, trained

SAME = Difference(absolute=1e-7, relative=2e-8, tolerance=1e-5)
PARITY = Parity(
    format="safetensors",
    images=3,
    source="three pictures",
    network=SAME,
    pictures=SAME,
    encoder_digest="",
    versions={"torch": "9.9"},
    files={},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> RunFolder:
    """A run with scores of its encoder and of a twin, and with one of other weights."""
    folder = trained(image_folder, tmp_path_factory.mktemp("runs") / "birds | <b>", seed=3)
    scored(folder)
    (own, *_) = (score for score in read_results(folder.results).scores if score.model == "encoder")
    append_results(folder.results, [own.model_copy(update={"checkpoint_digest": "other", "metric": "alien"})])
    return folder


def card_of(run: Path, licence: str = "not stated") -> tuple[str, list[str]]:
    which = load_encoder(run)
    remarks: list[str] = []
    origin = origin_of(run, which, remarks.append)
    return model_card(which, origin, SafetensorsFormat().manual(which), PARITY, licence), remarks


def test_the_card_tells_what_the_run_was(run: RunFolder, image_folder: Path) -> None:
    card, remarks = card_of(run.path)
    assert not remarks
    for told_ in (
        "# birds \\| &lt;b>",
        f"| Images of training | folder {image_folder.name}, 40 images |",
        "| Network | resnet10, width 0.125, small stem;",
        "| Method | cgh |",
        "| Training | 6 steps, 72 images seen, batch of 12, 16 px, learning rate",
        ", seed 3 |",
        f"digest `{load_encoder(run.path).digest}`",
        "| Licence | not stated |",
        "| equal inputs | 1.0e-07 | 2.0e-08 | 1e-05 |",
        "on 3 images (three pictures)",
        "torch 9.9",
    ):
        assert told_ in card


def test_scores_are_those_of_these_weights_with_interval_and_protocol(run: RunFolder) -> None:
    card, _ = card_of(run.path)
    rows = [line for line in card.splitlines() if line.startswith("| knn |")]
    (score,) = (
        score
        for score in read_results(run.results).scores
        if score.model == "encoder" and score.metric[0] == "t"
    )
    assert len(rows) == 1
    assert f"| {score.n} |" in rows[0]
    assert re.search(r"\d\.\d \[\d+\.\d, \d+\.\d\] ", rows[0])
    assert f"`{score.protocol_digest}`" in rows[0]
    assert "alien" not in card


def test_the_last_score_of_a_protocol_counts(run: RunFolder, tmp_path: Path) -> None:
    scores = read_results(run.results).scores
    digest = load_encoder(run.path).digest
    own = [score for score in scores if score.checkpoint_digest == digest]
    again = RunFolder(tmp_path / "again")
    shutil.copytree(run.path, again.path)
    append_results(again.results, [own[-1].model_copy(update={"value": own[-1].low})])
    origin = origin_of(again.path, load_encoder(again.path), lambda _: None)
    assert [score.value for score in origin.scores] == [own[-1].low]


def test_the_front_matter_is_yaml_that_the_hub_understands(run: RunFolder) -> None:
    card, _ = card_of(run.path, licence="cc-by-nc-4.0: 'x'")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front == {
        "license": "cc-by-nc-4.0: 'x'",
        "library_name": "pytorch",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["self-supervised", "crosscontext", "cgh"],
        "metrics": ["accuracy"],
    }
    assert "license" not in yaml.safe_load(card_of(run.path)[0].split("---\n")[1])


def test_the_recipe_is_whole_but_tells_no_places_of_the_machine(run: RunFolder, image_folder: Path) -> None:
    card, _ = card_of(run.path)
    (recipe,) = re.findall(r"```yaml\n(.*?)```", card, flags=re.DOTALL)
    settings = yaml.safe_load(recipe)
    assert settings["method"]["memory"]["slots"] == 30
    assert settings["data"]["path"] == image_folder.name
    assert "out" not in settings
    assert str(image_folder.parent) not in card
    assert str(run.path.parent) not in card


def test_of_a_file_alone_it_says_what_is_not_known(tmp_path: Path) -> None:
    card, remarks = card_of(saved(tmp_path, encoder(NARROW, 16)))
    assert not remarks
    assert "# mine" in card
    assert "| Images of training | not known |" in card
    assert "| Method | not known |" in card
    assert "| Training | 7 steps |" in card
    assert "None of these very weights are known." in card
    assert "```yaml" not in card
    assert code_of(card)


def test_what_is_missing_in_a_run_folder_is_told(run: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.encoder.write_bytes(run.encoder.read_bytes())
    card, remarks = card_of(tmp_path)
    assert "| Method | not known |" in card
    assert "the card does not tell the recipe" in remarks[0]
    folder.config.write_text(run.config.read_text().replace("pictures", "gone"))
    card, remarks = card_of(tmp_path)
    assert ", number not known |" in card
    assert "the card does not tell the number of training images" in remarks[0]


def test_data_sets_are_named_without_their_place(tmp_path: Path) -> None:
    assert told(FolderSettings(path=tmp_path / "birds")) == "folder birds"

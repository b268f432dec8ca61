import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from crosscontext.backbones import ResNetSettings, TimmSettings
from handed_over import PLAIN, assert_close, encoder, expected, exported, photo, run_card

NETWORKS = pytest.mark.parametrize(
    "backbone", [PLAIN, TimmSettings(model="vit_tiny_patch16_224")], ids=["resnet18", "vit"]
)


@NETWORKS
def test_the_folder_is_loaded_as_one_of_the_hub(
    backbone: ResNetSettings | TimmSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = encoder(backbone)
    out = exported(tmp_path, which, "hf", licence="apache-2.0").out
    monkeypatch.chdir(out)
    assert_close(run_card(out)["features"], expected(which))
    card = (out / "README.md").read_text()
    about = ModelCard(card).data.to_dict()  # type: ignore[no-untyped-call]  # the hub's
    assert (about["license"], about["library_name"]) == ("apache-2.0", "timm")
    assert 'Once the folder is uploaded, write `"hf-hub:OWNER/NAME"`' in card


@NETWORKS
def test_transformers_finds_the_same_features_and_adds_a_classifier(
    backbone: ResNetSettings | TimmSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification

    which = encoder(backbone)
    out = exported(tmp_path, which, "hf").out
    monkeypatch.chdir(tmp_path)
    photo().save("picture.jpg", quality=95)
    assert "transformers loads it, too" in (out / "README.md").read_text()
    with Image.open("picture.jpg") as picture:
        prepare = AutoImageProcessor.from_pretrained(out)  # type: ignore[no-untyped-call]  # theirs
        seen = prepare(picture, return_tensors="pt")
    with torch.no_grad():
        assert_close(AutoModel.from_pretrained(out)(**seen).pooler_output, expected(which))
        classifier = AutoModelForImageClassification.from_pretrained(out, num_labels=7)
        assert classifier(**seen).logits.shape == (1, 7)


def test_a_network_that_timm_calls_otherwise_is_not_promised_to_transformers(tmp_path: Path) -> None:
    out = exported(tmp_path, encoder(TimmSettings(model="convnext_atto")), "hf").out
    assert "transformers" not in (out / "README.md").read_text()


def test_the_configuration_names_what_the_hub_shows(tmp_path: Path) -> None:
    out = exported(tmp_path, encoder(ResNetSettings(depth=10, stem="large"), 96), "hf").out
    config = json.loads((out / "config.json").read_text())
    assert (config["architecture"], config["num_features"]) == ("resnet18", 512)
    assert config["model_args"] == {"layers": [1, 1, 1, 1]}
    seen = config["pretrained_cfg"]
    assert (seen["input_size"], seen["mean"], seen["interpolation"]) == (
        [3, 96, 96],
        [0.5, 0.4, 0.3],
        "bilinear",
    )

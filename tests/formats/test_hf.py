import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from crosscontext.backbones import ResNetSettings, TimmSettings
from handed_over import PLAIN, assert_close, encoder, expected, exported, run_card


@pytest.mark.parametrize(
    "backbone",
    [PLAIN, TimmSettings(model="vit_tiny_patch16_224")],
    ids=["resnet18", "vit"],
)
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


def test_the_configuration_names_what_the_hub_shows(tmp_path: Path) -> None:
    out = exported(tmp_path, encoder(ResNetSettings(depth=10, stem="large"), 96), "hf").out
    config = json.loads((out / "config.json").read_text())
    assert (config["architecture"], config["num_features"]) == ("resnet18", 512)
    assert config["model_args"] == {"num_classes": 0, "layers": [1, 1, 1, 1]}
    seen = config["pretrained_cfg"]
    assert (seen["input_size"], seen["mean"], seen["interpolation"]) == (
        [3, 96, 96],
        [0.5, 0.4, 0.3],
        "bilinear",
    )

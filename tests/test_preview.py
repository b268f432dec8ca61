from pathlib import Path

import numpy as np
from PIL import Image

from crosscontext.datasets.shapes import ShapesSettings
from crosscontext.preview import views_picture
from crosscontext.views import ViewsSettings


def test_the_contact_sheet_has_a_row_an_image_and_a_column_a_view(tmp_path: Path) -> None:
    shapes, path = ShapesSettings(num_train=5, num_test=0).open().train, tmp_path / "views.png"
    views_picture(shapes, ViewsSettings(), {"weak": 1, "strong": 1, "local": 2}, 100, 3, 0, path)
    with Image.open(path) as sheet:
        assert sheet.size == (8 + 5 * 108, 20 + 3 * 108)
        pixels = np.asarray(sheet)
    local = pixels[20:120, 8 + 3 * 108 : 108 + 3 * 108]
    assert (local[40:, :] == 255).all()  # 40 pixels wide, at the scale of the others
    assert (local[:40, :40] != 255).any(axis=2).mean() > 0.9

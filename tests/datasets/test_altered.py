import numpy as np
from PIL import Image

from crosscontext.datasets.altered import AlteredDataset
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Labels


def test_each_image_is_altered_by_its_index_and_keeps_name_and_label() -> None:
    labels = Labels(("a", "b"), np.array([0, 1, 0]))
    dataset = ArrayDataset(np.full((3, 4, 4, 3), 100, dtype=np.uint8), ["x", "y", "z"], labels)

    def brighten(picture: Image.Image, index: int) -> Image.Image:
        return picture.point(lambda value: value + index)

    altered = AlteredDataset(dataset, brighten)
    assert [int(np.array(altered.image(i))[0, 0, 0]) for i in range(3)] == [100, 101, 102]
    assert (altered.names, altered.labels, altered.class_names) == (["x", "y", "z"], labels, ("a", "b"))
    assert altered.pixels(2).max() == 102

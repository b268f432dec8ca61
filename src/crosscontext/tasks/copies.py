"""The copy detection task: does a distorted copy of an image find its original? No labels are needed."""

import io
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter
from pydantic import Field

from crosscontext.confidence import Mean
from crosscontext.datasets import Annotation
from crosscontext.datasets.altered import AlteredDataset
from crosscontext.errors import DataError
from crosscontext.features import extract
from crosscontext.neighbours import nearest
from crosscontext.randomness import uniforms
from crosscontext.shapes import Float64
from crosscontext.subjects import Subject
from crosscontext.tasks.contract import Measurement, Task

Distortion = Literal["crop", "jpeg", "blur", "colour", "rotation"]
_DISTORTIONS: tuple[Distortion, ...] = get_args(Distortion)
_STREAM = 2  # of the random numbers; apart from those of the views
_NUM_DRAWS = 3
_BESIDE_A_TURNED_PICTURE = (128, 128, 128)


class CopiesSettings(Task):
    """Distorted copies of test images ask for their originals among all test images, by cosine.

    The score is the share of the copies to which the original is more similar than any other image; so
    features that are all alike find nothing. Such distortions are those of Copydays (Douze et al., CIVR 2009)
    and DISC21 (Douze et al., 2021, arXiv 2106.09672).
    """

    reads: ClassVar[Annotation] = "none"
    learns: ClassVar[bool] = False

    name: Literal["copies"] = "copies"

    distortions: tuple[Distortion, ...] = Field(_DISTORTIONS, min_length=1)
    """Kinds of copies, one score each and one for their mean: crop, jpeg, blur, colour, rotation."""

    images: int = Field(2000, ge=1)
    """Test images of which copies are made, drawn by the seed; all test images are searched."""

    crop_area: float = Field(0.5, gt=0, lt=1)
    """Share of the area that a crop keeps, at a random place."""

    jpeg_quality: int = Field(20, ge=1, le=95)
    """Quality of the JPEG file, as Pillow counts."""

    blur: float = Field(0.03, gt=0, le=0.5)
    """Standard deviation of the Gaussian blur, in lengths of the shorter side."""

    colour: float = Field(0.4, gt=0, lt=1)
    """Brightness, then contrast, then saturation are multiplied by 1 + this or 1 − this, at random."""

    degrees: float = Field(15.0, gt=0, le=180)
    """A picture is turned so far to the left or to the right, at random; uncovered corners become grey."""

    def judge(self, subject: Subject) -> Iterator[Measurement]:
        """Yield the recall for each distortion, and their mean.

        Raises:
            DataError: there is nothing to confuse an image with.
        """
        originals = subject.test.values
        if len(originals) == 1:
            raise DataError(
                f"{subject.test.names[0]} is the only test image that can be read; a copy needs others that "
                "it could be taken for. Give more images."
            )
        sample = subject.sample_test(self.images)
        found = {}
        for kind in dict.fromkeys(self.distortions):
            copies = AlteredDataset(sample.images, self._distorter(kind, subject.seed))
            features = extract(subject.model, copies, subject.batch_size, subject.workers)
            neighbours = nearest(features.values, originals, 2)
            first, second = neighbours.similarity.unbind(dim=1)
            found[kind] = torch.eq(neighbours.rows[:, 0], sample.rows) & (first > second)
            yield Measurement(f"recall_at_1_{kind}", Mean(found[kind]), {})
        yield Measurement("recall_at_1", Mean(torch.stack(list(found.values())).double().mean(dim=0)), {})

    def _distorter(self, kind: Distortion, seed: int) -> Callable[[Image.Image, int], Image.Image]:
        number = _DISTORTIONS.index(kind)

        def alter(picture: Image.Image, index: int) -> Image.Image:
            (draws,) = uniforms(seed, 0, np.array([index]), number, count=_NUM_DRAWS, stream=_STREAM)
            return distort(picture, kind, draws, self)

        return alter


def distort(
    picture: Image.Image, kind: Distortion, draws: Float64[np.ndarray, " 3"], settings: CopiesSettings
) -> Image.Image:
    """Distort a picture.

    Args:
        picture: in mode RGB.
        kind: what is done to it.
        draws: uniform numbers in [0, 1), which decide what the settings leave open.
        settings: the strengths.
    """
    match kind:
        case "crop":
            width, height = (max(1, round(side * settings.crop_area**0.5)) for side in picture.size)
            left = int(draws[0] * (picture.width - width + 1))
            top = int(draws[1] * (picture.height - height + 1))
            return picture.crop((left, top, left + width, top + height))
        case "jpeg":
            content = io.BytesIO()
            picture.save(content, "JPEG", quality=settings.jpeg_quality)
            return Image.open(content)
        case "blur":
            return picture.filter(ImageFilter.GaussianBlur(settings.blur * min(picture.size)))
        case "colour":
            for enhance, draw in zip(
                (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color), draws, strict=True
            ):
                picture = enhance(picture).enhance(1 + _either(settings.colour, draw))
            return picture
        case "rotation":
            angle = _either(settings.degrees, draws[0])
            return picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=_BESIDE_A_TURNED_PICTURE)


def _either(size: float, draw: float) -> float:
    return size if draw < 0.5 else -size

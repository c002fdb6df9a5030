"""Drawings are framed as MNIST frames its digits, wherever and however large they were drawn."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from onecycle import MLP, Learner, accuracy, mnist
from onecycle.cli.digits import framed, white_on_black
from onecycle.data.datasets import mnist_arrays
from onecycle.errors import DataError


def drawn(digit: int, size: int, left: int = 0, top: int = 0, paper: int = 255, ink: int = 0) -> np.ndarray:
    """A digit in the font that comes with Pillow, `size` pixels high, somewhere on a sheet of paper."""
    sheet = Image.new("L", (2 * size + 40, 2 * size + 40), paper)
    font = ImageFont.load_default(size=size)
    ImageDraw.Draw(sheet).text((size // 4 + left, size // 4 + top), str(digit), fill=ink, font=font)
    return np.array(sheet)


def prepared(image: np.ndarray, side: int = 28) -> np.ndarray:
    return framed(white_on_black(image, "x.png")[0], side)


@pytest.mark.parametrize("size", [24, 60, 200])
def test_where_it_was_drawn_does_not_matter(size: int) -> None:
    for digit in range(10):
        want = prepared(drawn(digit, size))
        for left, top in ((1, 0), (0, 7), (33, 39)):
            np.testing.assert_array_equal(prepared(drawn(digit, size, left, top)), want)


@pytest.mark.parametrize("side", [8, 28, 32])
def test_the_frame_is_mnists(side: int) -> None:
    for digit in range(10):
        image = prepared(drawn(digit, 100), side).astype(float)
        assert image.shape == (side, side)
        assert image.max() == 255
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == round(side * 20 / 28)
        for axis in (0, 1):
            centre = (image.sum(axis=1 - axis) * np.arange(side)).sum() / image.sum()
            assert abs(centre - side / 2) <= 0.5


def test_the_aspect_ratio_is_kept() -> None:
    bar = np.zeros((100, 300), np.uint8)
    bar[40:60, 50:250] = 255
    image = prepared(bar)
    assert np.flatnonzero(image.any(axis=1)).tolist() == [13, 14]
    assert np.flatnonzero(image.any(axis=0)).tolist() == [*range(4, 24)]


def test_an_image_of_the_models_size_is_not_moved() -> None:
    image = np.zeros((28, 28), np.uint8)
    image[0:5, 0:3] = 254
    np.testing.assert_array_equal(prepared(image), image)
    np.testing.assert_array_equal(prepared(255 - image), image)


@pytest.mark.parametrize(
    ("paper", "ink", "inverted"), [(255, 0, True), (0, 255, False), (200, 150, True), (90, 130, False)]
)
def test_light_and_dark_are_relative(paper: int, ink: int, inverted: bool) -> None:
    image, was = white_on_black(drawn(3, 60, paper=paper, ink=ink), "x.png")
    assert was == inverted
    assert (image[0, 0], image.max()) == (0, 255)
    assert np.abs(image.astype(int) - white_on_black(drawn(3, 60), "x.png")[0]).max() <= 5  # the steps of 40 grays


def test_a_digit_that_touches_the_corners() -> None:
    seven = np.full((28, 28), 255, np.uint8)
    seven[0:4] = 0
    seven[:, 24:] = 0
    image, inverted = white_on_black(np.pad(seven, ((0, 9), (20, 0)), constant_values=255), "x.png")
    assert inverted
    assert image[0, -1] == 255


@pytest.mark.parametrize(
    ("image", "found"), [(np.full((9, 9), 255), "255"), (np.arange(250, 254).reshape(2, 2), "250 to 253")]
)
def test_no_contrast(image: np.ndarray, found: str) -> None:
    with pytest.raises(
        DataError, match=rf"^x\.png has no contrast: all its pixels are {found} \(of 255\); expected a digit"
    ):
        white_on_black(image.astype(np.uint8), "x.png")


@pytest.mark.slow
def test_a_model_of_mnist_reads_what_was_framed() -> None:
    learn = Learner(mnist(seed=1), MLP(784, 256, 128, 10), metrics=accuracy, silent=True)
    learn.fit_one_cycle(3, 1e-2)

    def read(images: list[np.ndarray]) -> np.ndarray:
        rows = np.stack(images).reshape(-1, 784) / np.float32(256)
        return learn.get_preds(torch.from_numpy(rows))[0].argmax(1).numpy()

    # print is not handwriting: its 1 has a foot, its 6 and 9 are closed
    for size in (60, 150, 400):
        assert (read([prepared(drawn(digit, size)) for digit in range(10)]) == np.arange(10)).sum() >= 7
    # MNIST's own digits, enlarged and moved to a corner of a white sheet, are read as well as before
    images, labels = (part[:1000] for part in mnist_arrays().valid)
    plain = images.reshape(-1, 28, 28)
    sheets = [
        np.pad(255 - np.array(Image.fromarray(image).resize((140, 140))), ((9, 90), (120, 4)), constant_values=255)
        for image in plain
    ]
    before, after = ((read(rows) == labels).mean() for rows in ([*plain], [prepared(sheet) for sheet in sheets]))
    assert after >= before - 0.02

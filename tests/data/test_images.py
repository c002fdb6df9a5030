import struct
import threading
import warnings
import weakref
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from onecycle.data import images as image_folder
from onecycle.data.images import read_gray, read_image_folder
from onecycle.errors import DataError, FileError, SettingError


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(path, array: np.ndarray, mode: str | None = None, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Two gray images of 5 x 4 pixels in each of two classes."""
    for i, name in enumerate(["dog/b.png", "dog/a.png", "cat/x.png", "cat/deep/y.PNG"]):
        save(tmp_path / name, pixels(i, 5, 4))
    return tmp_path


def test_classes_files_and_pixels(folder):
    images = read_image_folder(str(folder))
    assert images.classes == ["cat", "dog"]
    assert images.files == [folder / name for name in ("cat/deep/y.PNG", "cat/x.png", "dog/a.png", "dog/b.png")]
    assert images.y.tolist() == [0, 0, 1, 1]
    assert images.y.dtype == torch.int64
    assert images.x.dtype == torch.uint8
    assert images.x.is_contiguous()
    np.testing.assert_array_equal(images.x.numpy(), [pixels(seed, 5, 4) for seed in (3, 2, 1, 0)])


def test_colours_have_three_channels(tmp_path):
    for i in range(3):
        save(tmp_path / f"{'ab'[i % 2]}/{i}.png", pixels(i, 5, 4, 3))
    images = read_image_folder(tmp_path)
    np.testing.assert_array_equal(images.x.numpy(), [pixels(i, 5, 4, 3).transpose(2, 0, 1) for i in (0, 2, 1)])


@pytest.mark.parametrize("coloured", [0, 1, 70, 139])
def test_one_image_with_colours_gives_all_of_them_three_channels(tmp_path, coloured):
    for i in range(140):  # more than are decoded at once
        save(tmp_path / f"{'ab'[i // 70]}/{i:03}.png", pixels(i, 5, 4, 3) if i == coloured else pixels(i, 5, 4))
    x = read_image_folder(tmp_path).x.numpy()
    assert x.shape == (140, 3, 5, 4)
    for i in range(140):
        expected = pixels(i, 5, 4, 3).transpose(2, 0, 1) if i == coloured else np.stack([pixels(i, 5, 4)] * 3)
        np.testing.assert_array_equal(x[i], expected)


def test_jpegs_are_what_pillow_makes_of_them(tmp_path):
    save(tmp_path / "a/gray.jpg", pixels(0, 16, 16))
    save(tmp_path / "b/gray.JPEG", pixels(1, 16, 16))
    images = read_image_folder(tmp_path)
    np.testing.assert_array_equal(images.x.numpy(), [np.array(Image.open(file)) for file in images.files])
    save(tmp_path / "b/inks.jpg", pixels(2, 16, 16, 3), "CMYK")
    x = read_image_folder(tmp_path).x
    np.testing.assert_array_equal(
        x[2].permute(1, 2, 0).numpy(), np.array(Image.open(tmp_path / "b/inks.jpg").convert("RGB"))
    )


def test_kinds_of_gray(tmp_path):
    gray = pixels(0, 5, 4)
    save(tmp_path / "a/black and white.png", gray, "1")
    save(tmp_path / "a/16 bits.png", gray.astype(np.uint16) * 257)
    indexed = Image.fromarray(gray).quantize(256)
    indexed.save(tmp_path / "a/palette.png")
    save(tmp_path / "b/gray.png", gray)
    images = read_image_folder(tmp_path)
    expected = [gray, np.array(Image.fromarray(gray).convert("1").convert("L")), np.array(indexed.convert("L")), gray]
    np.testing.assert_array_equal(images.x.numpy(), expected)
    Image.fromarray(pixels(1, 5, 4, 3)).quantize(8).save(tmp_path / "b/palette.png")
    assert read_image_folder(tmp_path).x.shape == (5, 3, 5, 4)


def test_what_is_transparent_becomes_white(tmp_path):
    gray, opacity = pixels(0, 5, 4), pixels(1, 5, 4)
    save(tmp_path / "a/la.png", np.dstack([gray, opacity]), "LA")
    save(tmp_path / "b/key.png", np.array([[0, 7], [7, 9]], np.uint8).repeat(2, 1).repeat(2, 0)[:, :4], transparency=7)
    flat = gray * (opacity / 255) + 255 * (1 - opacity / 255)
    with pytest.raises(DataError):  # of different sizes
        read_image_folder(tmp_path)
    save(tmp_path / "b/key.png", np.array([[0, 7, 7, 9]] * 5, np.uint8), transparency=7)
    x = read_image_folder(tmp_path).x
    assert x.shape == (2, 5, 4)
    np.testing.assert_allclose(x[0].numpy(), flat, atol=1.01)
    assert x[1].tolist() == [[0, 255, 255, 9]] * 5
    save(tmp_path / "b/key.png", np.dstack([pixels(2, 5, 4, 3), opacity]))
    x = read_image_folder(tmp_path).x
    flat = pixels(2, 5, 4, 3) * (opacity[:, :, None] / 255) + 255 * (1 - opacity[:, :, None] / 255)
    np.testing.assert_allclose(x[1].permute(1, 2, 0).numpy(), flat, atol=1.01)


@pytest.mark.parametrize("form", ["png", "jpg"])
@pytest.mark.parametrize("orientation", range(10))
def test_photographs_are_turned_as_the_camera_says(tmp_path, orientation, form):
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(tmp_path / f"a/x.{form}", pixels(0, 8, 8), exif=exif)
    save(tmp_path / f"b/x.{form}", pixels(1, 8, 8))
    expected = ImageOps.exif_transpose(Image.open(tmp_path / f"a/x.{form}"))
    np.testing.assert_array_equal(read_image_folder(tmp_path).x[0].numpy(), np.array(expected))


def test_turned_photographs_have_the_size_of_the_others(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a/x.jpg", pixels(0, 8, 16), exif=exif)
    save(tmp_path / "b/x.jpg", pixels(1, 16, 8))
    assert read_image_folder(tmp_path).x.shape == (2, 16, 8)


def test_broken_tags_beside_the_orientation_do_no_harm(tmp_path):
    orientation, number_as_text = struct.pack("<HHII", 0x0112, 3, 1, 6), struct.pack("<HHII", 0x0132, 11, 1, 5)
    tags = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + orientation + number_as_text + bytes(4)
    save(tmp_path / "x.jpg", pixels(0, 8, 16), exif=tags)
    assert read_gray(tmp_path / "x.jpg").shape == (16, 8)


def test_sizes(folder):
    save(folder / "dog/c.jpg", pixels(9, 20, 30, 3))
    with pytest.raises(DataError) as error:
        read_image_folder(folder)
    assert str(error.value) == (
        f"{folder / 'dog/c.jpg'} has 20 x 30 pixels (height x width), {folder / 'cat/deep/y.PNG'} has 5 x 4; expected one "
        "size; say which one to scale them all to: --image-size 28, or in Python image_size=28"
    )
    assert read_image_folder(folder, size=7).x.shape == (5, 3, 7, 7)
    x = read_image_folder(folder, size=(6, 9)).x
    assert x.shape == (5, 3, 6, 9)
    scaled = Image.open(folder / "dog/c.jpg").resize((9, 6), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(x[4].permute(1, 2, 0).numpy(), np.array(scaled))


@pytest.mark.parametrize("size", [0, -1, 1.5, "7", (5,), (5, 0), (1, 2, 3), True])
def test_bad_sizes(folder, size):
    with pytest.raises(SettingError, match=r"size is .*; expected a"):
        read_image_folder(folder, size=size)


def test_hidden_files_are_left_out_and_others_named(folder):
    (folder / ".DS_Store").touch()
    (folder / ".git").mkdir()
    (folder / "cat/.hidden.png").touch()
    (folder / "cat/.thumbnails").mkdir()
    (folder / "cat/.thumbnails/x.png").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_image_folder(folder).files) == 4
    (folder / "README.md").touch()
    (folder / "loose.png").touch()
    (folder / "empty/inner").mkdir(parents=True)
    (folder / "cat/deep/notes.txt").touch()
    with pytest.warns(UserWarning, match="left out") as warned:
        assert read_image_folder(folder).classes == ["cat", "dog"]
    assert [str(warning.message) for warning in warned] == [
        f"{folder}: left out, not images of a class: cat/deep/notes.txt, README.md, empty, loose.png",
    ]
    assert warned[0].filename == __file__
    for i in range(10):
        (folder / f"dog/{i}.txt").touch()
    with pytest.warns(UserWarning, match=r"notes\.txt, dog/0\.txt, dog/1\.txt, dog/2\.txt, dog/3\.txt and 9 more$"):
        read_image_folder(folder)


def test_folders_without_classes(tmp_path):
    with pytest.raises(FileError, match="nowhere: no such file"):
        read_image_folder(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="file: a file; expected a folder with a sub-folder of images for each class"):
        read_image_folder(tmp_path / "file")
    wanted = "expected a sub-folder of images for each of two classes or more"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=f"empty: no sub-folders with PNG or JPEG images; {wanted}"):
        read_image_folder(tmp_path / "empty")
    save(tmp_path / "images/x.png", pixels(0, 2, 2))
    with pytest.raises(DataError, match=f"images: no sub-folders with PNG or JPEG images; {wanted}"):
        read_image_folder(tmp_path / "images")
    save(tmp_path / "images/cat/x.png", pixels(0, 2, 2))
    with pytest.raises(DataError, match=f'images: one class, "cat"; {wanted}'):
        read_image_folder(tmp_path / "images")


def test_folders_of_splits(folder, tmp_path_factory):
    splits = tmp_path_factory.mktemp("splits")
    for split in ("Train", "valid"):
        save(splits / split / "cat" / "x.png", pixels(0, 2, 2))
    with pytest.raises(DataError) as error:
        read_image_folder(splits)
    assert str(error.value) == (
        f"{splits}: the sub-folders are Train, valid, which are splits, not classes; expected a sub-folder for each class; "
        f"read one of them, for example {splits / 'Train'}"
    )


def test_damaged_images_are_named(folder):
    path = folder / "dog/c.png"
    save(path, pixels(0, 5, 4))
    whole = path.read_bytes()
    jpeg = folder / "x.jpg"
    save(jpeg, pixels(0, 50, 40))
    photo = jpeg.read_bytes()
    jpeg.unlink()
    for content, message in [
        (b"", "not a PNG or JPEG image, or a damaged one (empty); expected a whole one; save it again"),
        (b"GIF89a" + b"\0" * 30, "not a PNG or JPEG image, or a damaged one (begins with b'GIF89a"),
        (whole[:20], "a damaged image ("),
        (whole[:45], "a damaged image ("),
        (whole[:60], "a damaged image (image file is truncated"),
        (whole[:45] + b"\xff" + whole[46:], "a damaged image ("),
        (photo[: len(photo) // 2], "a damaged image (image file is truncated"),
        (photo[:30], "; expected a whole one; save it again"),
    ]:
        path.write_bytes(content)
        with pytest.raises(FileError) as error:
            read_image_folder(folder)
        assert str(error.value).startswith(f"{path}: ")
        assert message in str(error.value)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("side", [10_000, 40_000])  # Pillow warns of the first and refuses the second
@pytest.mark.parametrize("quiet", [False, True])
def test_decompression_bombs(folder, side, quiet):
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10_000)))
        + chunk(b"IEND", b"")
    )
    (folder / "dog/bomb.png").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if quiet else "error")
        for read in (read_image_folder, lambda folder: read_gray(folder / "dog/bomb.png")):
            with pytest.raises(
                FileError, match=r"bomb\.png: an image too large to be read safely \(.*\); make it smaller"
            ):
                read(folder)


def test_the_first_damaged_image_is_named_whichever_is_decoded_first(folder):
    for name in ("cat/a.png", "dog/z.png"):
        (folder / name).write_bytes(b"")
    for _ in range(5):
        with pytest.raises(FileError, match=r"cat.a\.png"):
            read_image_folder(folder)
    assert threading.active_count() == 1


def test_what_is_decoded_is_not_held_beside_the_tensor(tmp_path, monkeypatch):
    for i in range(40):
        save(tmp_path / f"{'ab'[i % 2]}/{i}.png", pixels(i, 8, 8))
    alive, most = [], [0]
    decode = image_folder._read_pixels

    def counted(*arguments, **options):
        tensor = decode(*arguments, **options)
        alive.append(weakref.ref(tensor))
        most[0] = max(most[0], sum(reference() is not None for reference in alive))
        return tensor

    monkeypatch.setattr(image_folder, "_read_pixels", counted)
    monkeypatch.setattr(image_folder, "_CHUNK", 4)
    assert len(read_image_folder(tmp_path).x) == 40
    assert most[0] <= 5


# one image as gray values


def test_gray_values(tmp_path):
    grey = np.arange(12, dtype="u1").reshape(3, 4) * 20
    Image.fromarray(grey).save(tmp_path / "x.png")
    found = read_gray(tmp_path / "x.png")
    np.testing.assert_array_equal(found, grey)
    assert found.dtype == np.uint8


def test_colors_become_gray(tmp_path):
    Image.new("RGBA", (2, 1), (255, 255, 255, 255)).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_gray(tmp_path / "x.png"), [[255, 255]])


@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (100, 255), (230, 0)])
@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_gray_of_what_is_transparent(tmp_path, mode, ink, ground):
    opacity = np.array([[0, 255], [255, 0]], "u1")
    image = Image.fromarray(np.stack([np.full_like(opacity, ink), opacity], axis=-1), "LA")
    if mode == "P":
        image = Image.fromarray((opacity == 0).astype("u1"), "P")
        image.putpalette([ink] * 3 + [128] * 3)
        image.save(tmp_path / "x.png", transparency=1)
    else:
        image.convert(mode).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_gray(tmp_path / "x.png"), [[ground, ink], [ink, ground]])


def test_gray_of_what_is_half_transparent(tmp_path):
    Image.new("LA", (2, 1), (0, 51)).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_gray(tmp_path / "x.png"), [[204, 204]])
    Image.new("RGBA", (2, 1), (9, 9, 9, 0)).save(tmp_path / "x.png")  # nothing is to be seen
    np.testing.assert_array_equal(read_gray(tmp_path / "x.png"), [[255, 255]])


def test_gray_of_16_bits(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], "u2")).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_gray(tmp_path / "x.png"), [[0, 100, 255]])


def test_every_truncation_of_a_png_is_reported(tmp_path):
    Image.fromarray(np.arange(250, dtype="u1").reshape(10, 25)).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    for end in range(len(content) - 20):  # only checksums and the end mark follow
        (tmp_path / "x.png").write_bytes(content[:end])
        with pytest.raises(
            FileError, match=r"x\.png: (not a PNG or JPEG image, or a damaged one|a damaged image) .*expected a whole"
        ) as caught:
            read_gray(tmp_path / "x.png")
        assert "object at" not in str(caught.value)


def test_the_format_is_read_off_the_content(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "x.bmp")
    with pytest.raises(FileError, match=r"x\.bmp: not a PNG or JPEG image, or a damaged one \(begins with b'BM"):
        read_gray(tmp_path / "x.bmp")
    Image.new("L", (2, 2), 9).save(tmp_path / "x.png", format="JPEG")
    np.testing.assert_array_equal(read_gray(tmp_path / "x.png"), [[9, 9], [9, 9]])


def test_images_that_cannot_be_opened(tmp_path):
    (tmp_path / "train.png").touch()
    with pytest.raises(FileError, match=r'trian\.png: no such file; did you mean "train\.png"\?'):
        read_gray(tmp_path / "trian.png")
    with pytest.raises(FileError, match="a folder; expected a file"):
        read_gray(tmp_path)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_images_are_errors_or_images(folder, data):
    path = folder / data.draw(st.sampled_from(["dog/q.png", "dog/q.jpg"]))
    exif = Image.Exif()
    exif[0x0112] = 3
    save(path, pixels(0, 5, 4), exif=exif)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read_image_folder(folder, size=4)
        except FileError as error:
            assert str(path) in str(error)  # noqa: PT017 -- some are readable still
        finally:
            path.unlink()

"""`onecycle predict`: rows of all shapes and formats, and files that are none."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import seeded, toy_arrays
from onecycle import MLP, DataBunch, Learner
from onecycle.cli.app import run

DIGIT = np.zeros((28, 28), np.uint8)
DIGIT[4:24, 12:16] = 255
DIGIT[4:8, 8:16] = 200


@pytest.fixture
def bundle(here: Path) -> Learner:
    """A model of 28 × 28 pixels in ./run/model."""
    data = DataBunch.create(toy_arrays(100, 784, 10), bs=10, device="cpu", seed=0)
    data.pixel_scale = 256.0
    learn = Learner(data, seeded(MLP(784, 20, 10)), path=here)
    learn.export("run/model")
    return learn


@pytest.fixture
def predicted(bundle: Learner, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[list[str]]]:
    """Predict with ./run: the lines of stdout, split at tabs."""

    def predict(file: str, run_path: str = "run") -> list[list[str]]:
        assert run(["predict", run_path, file]) == 0
        return [line.split("\t") for line in capsys.readouterr().out.splitlines()]

    return predict


def expected(learn: Learner, x: np.ndarray) -> list[list[str]]:
    probs, _ = learn.get_preds(torch.from_numpy(x.astype(np.float32)))
    return [[str(int(row.argmax())), str(round(float(row.max()), 6))] for row in probs]


@pytest.mark.parametrize("shape", [(784,), (2, 784), (28, 28), (3, 28, 28), (1, 784)])
def test_npy_of_all_shapes(bundle: Learner, predicted: Callable[..., list[list[str]]], shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.save("pixels.npy", x)
    np.save("floats.npy", x / 256)
    want = expected(bundle, x.reshape(-1, 784) / 256)
    assert predicted("pixels.npy") == want
    assert predicted("floats.npy") == want
    assert predicted("pixels.npy", "run/model") == want


def test_npz(bundle: Learner, predicted: Callable[..., list[list[str]]], capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("one.npz", whatever=DIGIT)
    np.savez("two.npz", x=DIGIT, y=np.zeros(1))
    np.savez("none.npz", a=DIGIT, b=DIGIT)
    want = expected(bundle, DIGIT.reshape(1, 784) / 256)
    assert predicted("one.npz") == predicted("two.npz") == want
    assert run(["predict", "run", "none.npz"]) == 2
    assert capsys.readouterr().err == "error: none.npz: holds the arrays a, b; expected one, or one called x\n"


def test_png(bundle: Learner, predicted: Callable[..., list[list[str]]], capsys: pytest.CaptureFixture[str]) -> None:
    want = expected(bundle, DIGIT.reshape(1, 784) / 256)
    Image.fromarray(DIGIT).save("digit.png")
    assert predicted("digit.png") == want
    Image.fromarray(255 - DIGIT).convert("RGB").save("LIGHT.PNG")
    assert run(["predict", "run", "LIGHT.PNG", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == "LIGHT.PNG: dark on light; inverted, since the model expects white on black\n"
    [found] = json.loads(out)["predictions"]
    assert [str(found["class"]), str(found["probability"])] == want[0]


def test_a_drawing_of_another_size_is_framed(
    bundle: Learner, predicted: Callable[..., list[list[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    large = np.kron(DIGIT, np.ones((4, 4), np.uint8))
    Image.fromarray(large).save("large.png")
    Image.fromarray(np.pad(large, ((0, 50), (80, 9)))).save("moved.png")
    clear = np.stack([np.zeros_like(large), large], axis=-1)  # black ink, of which only the opacity says where it is
    Image.fromarray(clear, "LA").save("clear.png")
    assert predicted("large.png") == predicted("moved.png") == predicted("clear.png")
    assert run(["predict", "run", "clear.png"]) == 0
    assert "clear.png: dark on light; inverted" in capsys.readouterr().err
    Image.new("L", (50, 60), 255).save("blank.png")
    assert run(["predict", "run", "blank.png"]) == 2
    assert capsys.readouterr().err.startswith("error: blank.png has no contrast: all its pixels are 255")


def test_whole_numbers_that_are_no_pixels(bundle: Learner, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.zeros((3, 784), np.int32)
    x[2, 5] = 256
    np.save("high.npy", x)
    np.savez("low.npz", x=x - 1)
    assert run(["predict", "run", "high.npy"]) == run(["predict", "run", "low.npz"]) == 2
    high, low = capsys.readouterr().err.splitlines()
    assert high.startswith(
        "error: high.npy contains 256 at row 2 (1 such values); whole numbers are pixels: expected 0 to 255"
    )
    assert low.startswith("error: low.npz contains -1 at row 0 (2351 such values)")


def test_floats_that_were_not_scaled(bundle: Learner, capsys: pytest.CaptureFixture[str]) -> None:
    for name, scale in (("raw", 1), ("scaled", 256)):
        np.save(f"{name}.npy", DIGIT / scale)
        assert run(["predict", "run", f"{name}.npy"]) == 0
    found = "raw.npy has values up to 255; the model was trained on pixels from 0 to 1: were they divided by 256?"
    assert capsys.readouterr().err == f"warning: {found}\n"


def test_bytes_for_a_model_of_floats(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = DataBunch.create(toy_arrays(100, 784, 10), bs=10, device="cpu", seed=0)
    Learner(data, seeded(MLP(784, 20, 10)), path=here).export("run/model")
    np.save("bytes.npy", DIGIT)
    np.save("flags.npy", (DIGIT > 0).astype(np.uint8))
    assert run(["predict", "run", "flags.npy"]) == 0
    assert capsys.readouterr().err == ""
    assert run(["predict", "run", "bytes.npy"]) == 0
    assert capsys.readouterr().err.startswith(
        "warning: bytes.npy holds bytes, up to 255, and the model was trained on floats: they are taken as they are"
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.npy", None, "missing.npy: no such file"),
        ("empty.npy", b"", "empty.npy"),
        ("damaged.npy", b"\x93NUMPY\x01\x00v\x00{'descr'", "damaged.npy"),
        ("damaged.npz", b"PK\x03\x04 nothing more", "damaged.npz"),
        ("damaged.png", b"\x89PNG\r\n\x1a\n", "damaged.png: not a PNG or JPEG image, or a damaged one"),
        ("text.png", b"hello world", "text.png: not a PNG or JPEG image, or a damaged one (begins with b'hello wo')"),
        (
            "photo.png",
            b"\xff\xd8\xff\xe0",
            "photo.png: not a PNG or JPEG image, or a damaged one (begins with b'\\xff\\xd8\\xff",
        ),
        ("notes.txt", b"7", "notes.txt: expected a file ending in .npy, .npz, .png"),
        ("folder.npy", "folder", "folder.npy: a folder; expected a file"),
    ],
)
def test_files_that_cannot_be_read(
    bundle: Learner, capsys: pytest.CaptureFixture[str], name: str, content: bytes | str | None, message: str
) -> None:
    if content == "folder":
        Path(name).mkdir()
    elif isinstance(content, bytes):
        Path(name).write_bytes(content)
    assert run(["predict", "run", name]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_a_truncated_file(bundle: Learner, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("whole.npy", DIGIT)
    Path("cut.npy").write_bytes(Path("whole.npy").read_bytes()[:-100])
    assert run(["predict", "run", "cut.npy"]) == 2
    assert capsys.readouterr().err.startswith("error: cut.npy: ")


def test_rows_that_do_not_fit(bundle: Learner, capsys: pytest.CaptureFixture[str]) -> None:
    for name, x in (("wide", np.zeros((3, 785))), ("none", np.zeros((0, 784))), ("nan", np.full((2, 784), np.nan))):
        np.save(f"{name}.npy", x)
        assert run(["predict", "run", f"{name}.npy"]) == 2
    wide, none, nan = capsys.readouterr().err.splitlines()
    forms = "expected (784,) or (n, 784) or (28, 28) or (n, 28, 28), with at least one row"
    assert wide == f"error: wide.npy: holds an array of shape (3, 785); {forms}"
    assert none == f"error: none.npy: holds an array of shape (0, 784); {forms}"
    assert nan.startswith("error: nan.npy contains nan at row 0, column 0")


def test_a_run_that_is_not_there(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "runs/mnist", "x.npy"]) == 2
    assert capsys.readouterr().err.startswith("error: runs/mnist: no such folder")


def test_folders_that_hold_no_run(bundle: Learner, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    Image.fromarray(DIGIT).save("x.png")
    assert run(["predict", "empty", "x.png"]) == run(["predict", "x.png", "run"]) == 2
    empty, swapped = capsys.readouterr().err.splitlines()
    expected = "expected a folder that `onecycle train` or `learn.export` wrote"
    assert empty == f"error: empty holds no run or bundle; {expected}"
    assert swapped == "error: x.png is a file; the RUN folder comes first: onecycle predict RUN FILE"


def test_a_model_of_no_images(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = DataBunch.create(toy_arrays(100, 20, 4), bs=10, device="cpu", seed=0)
    Learner(data, MLP(20, 4), path=here).export("flat")
    Image.fromarray(DIGIT).save("digit.png")
    assert run(["predict", "flat", "digit.png"]) == 2
    assert "the model does not take square gray images" in capsys.readouterr().err
    np.save("whole.npy", np.ones((2, 20), np.int64))  # no pixels: taken as they are
    assert run(["predict", "flat", "whole.npy"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2

"""The text of options as settings; tests/test_cli.py has what is refused."""

import subprocess
import sys
from pathlib import Path

import pytest

from onecycle.cli.settings import ModelChoice, TrainSettings, run_folder


def test_what_is_not_given_is_left_to_rules(here: Path) -> None:
    Path("a.csv").touch()
    settings = TrainSettings.parse("a.csv")
    assert (settings.epochs, settings.lr, settings.data.bs, settings.model) == (
        None,
        None,
        None,
        ModelChoice("auto", None),
    )
    assert (settings.data.split, settings.data.valid, settings.data.task) == ("auto", 0.2, None)


def test_what_is_given(here: Path) -> None:
    settings = TrainSettings.parse(
        ".", target="a,b", valid="0.3", kinds=["a=number", "b=c=date"], image_size="28x32", epochs="3", bs="9"
    )  # fmt: skip
    assert (settings.epochs, settings.data.bs, settings.data.target) == (3, 9, "a,b")
    assert settings.data.kinds == (("a", "number"), ("b=c", "date"))
    assert settings.data.image_size == (28, 32)
    assert settings.data.valid == 0.3
    assert TrainSettings.parse(".", image_size="9").data.image_size == (9, 9)
    assert TrainSettings.parse(".", valid="100").data.valid == 100
    assert isinstance(TrainSettings.parse(".", valid="100").data.valid, int)


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("auto", ModelChoice("auto", None)),
        ("mlp", ModelChoice("mlp", None)),
        ("mlp:", ModelChoice("mlp", ())),
        ("mlp:256,128", ModelChoice("mlp", (256, 128))),
        ("tabular:8", ModelChoice("tabular", (8,))),
    ],
)
def test_models(text: str, choice: ModelChoice) -> None:
    assert TrainSettings.parse(".", model=text).model == choice


def test_the_hidden_layers_of_mnist() -> None:
    assert TrainSettings.parse("mnist", hidden="30,20").model == ModelChoice("mlp", (30, 20))
    assert TrainSettings.parse("mnist", hidden="").model == ModelChoice("mlp", ())
    assert TrainSettings.parse("mnist", model="mlp:9").model == ModelChoice("mlp", (9,))


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        *(("mnist", "mnist"), ("a.csv", "a"), ("deep/b.v2.parquet", "b.v2"), ("c.tsv.gz", "c"), ("C.CSV.ZST", "C")),
        ("photos", "photos"), ("photos.v2/", "photos.v2"), ("x-ubyte.gz", "x-ubyte"), ("deep/..", "here"),
    ],
)  # fmt: skip
def test_where_a_run_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, folder: str) -> None:
    (tmp_path / "here" / "deep").mkdir(parents=True)
    (tmp_path / "here" / "photos.v2").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run_folder(source) == Path("runs") / folder


def test_bad_requests_are_refused_without_heavy_imports() -> None:
    code = (
        "import sys; from onecycle.cli.app import run\n"
        "assert run(['train', '.', '--split', 'x']) == run(['inspect', 'x.csv']) == run(['predict', 'r', 'f', '-o', 'x']) == 2\n"
        "print(*{'torch', 'numpy', 'pyarrow', 'rich', 'matplotlib'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""

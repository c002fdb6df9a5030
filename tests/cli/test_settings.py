"""The options of the command line as settings; test_app.py has the values that are refused."""

from pathlib import Path
from typing import Any

import pytest
import typer

from onecycle.checkpoint.run_folder import RunFolder
from onecycle.cli.options import takes_settings
from onecycle.cli.run_files import load_settings, save_settings
from onecycle.cli.settings import ModelChoice, TrainSettings, default_run_folder


def parsed(*args: str, **decoration: Any) -> TrainSettings:
    """Return the settings that a command gets for these arguments."""
    app = typer.Typer(add_completion=False)

    @app.command()
    @takes_settings(**decoration)
    def command(settings: TrainSettings) -> TrainSettings:
        return settings

    return typer.main.get_command(app).main([*args], standalone_mode=False)


def test_what_is_not_given_is_left_to_rules(here: Path) -> None:
    Path("a.csv").touch()
    settings = parsed("a.csv")
    assert (settings.epochs, settings.lr, settings.bs, settings.model) == (None, None, None, ModelChoice("auto", None))
    assert (settings.table.split, settings.table.valid, settings.table.task) == ("auto", 0.2, None)
    assert (settings.table.target, settings.table.drop, settings.table.seed) == ((), (), 42)
    auto = ("--epochs", "auto", "--lr", "auto", "--bs", "auto", "--model", "auto")
    assert parsed("a.csv", *auto) == settings


def test_what_is_given(here: Path) -> None:
    settings = parsed(
        *(".", "--target", "a,b", "--valid", "0.3", "--kind", "a=number", "--kind", "b=c=date"),
        *("--image-size", "28x32", "--epochs", "3", "--bs", "9", "--engine", "eager", "--wd", "1e-4"),
    )
    assert (settings.epochs, settings.bs, settings.engine, settings.wd) == (3, 9, "eager", 1e-4)
    assert settings.table.target == "a,b"
    assert settings.table.kinds == {"a": "number", "b=c": "date"}
    assert settings.image_size == (28, 32)
    assert settings.table.valid == 0.3
    assert parsed(".", "--image-size", "9").image_size == (9, 9)
    assert parsed(".", "--valid", "100").table.valid == 100
    assert isinstance(parsed(".", "--valid", "100").table.valid, int)


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
    assert parsed(".", "--model", text).model == choice


def test_the_hidden_layers_of_mnist() -> None:
    assert parsed("mnist", "--hidden", "30,20").model == ModelChoice("mlp", (30, 20))
    assert parsed("mnist", "--hidden", "").model == ModelChoice("mlp", ())
    assert parsed("mnist", "--model", "mlp:9").model == ModelChoice("mlp", (9,))


def test_options_that_a_command_leaves_out_keep_their_defaults() -> None:
    assert parsed("mnist", without=("lr", "wd", "engine")) == parsed("mnist")
    with pytest.raises(Exception, match="No such option: --lr"):
        parsed("mnist", "--lr", "1", without=("lr",))
    assert parsed(source_required=False) is None


def test_saved_settings_are_loaded_as_they_were(here: Path) -> None:
    settings = parsed(
        *(str(here), "--target", "a", "--drop", "b,c", "--kind", "x=category", "--task", "classes", "--valid", "7"),
        *("--image-size", "8x9", "--model", "mlp:3,2", "--epochs", "2", "--split", "random", "--threads", "3"),
    )
    RunFolder("run").write("0000000001", {}, {})
    save_settings(Path("run"), settings, "30 s", 0.1, None)
    assert load_settings(Path("run")) == (settings, "30 s", 0.1, None)


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
    assert default_run_folder(source) == Path("runs") / folder

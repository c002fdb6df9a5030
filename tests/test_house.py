"""The structure of the source, read off its syntax trees: who imports whom, and what is public."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import onecycle
import onecycle.basics

SOURCE = Path(onecycle.__file__).parent
MAY_IMPORT = {
    "core": {"core", "errors"},
    "show": {"core", "errors", "show"},
    "tables": {"core", "errors", "tables"},
    "data": {"core", "errors", "show", "tables", "data"},
    "optim": {"core", "errors", "optim"},
    "train": {"core", "errors", "show", "data", "optim", "train"},
    "engine": {"core", "errors", "data", "optim", "train", "engine"},
    "checkpoint": {"core", "errors", "optim", "train", "checkpoint"},
    "export": {"core", "errors", "tables", "train", "checkpoint", "export"},
    "predictor.py": {"core", "errors", "data", "tables", "train", "checkpoint", "export"},
    "learner.py": {"core", "errors", "show", "data", "optim", "train", "engine", "checkpoint", "export", "predictor"},
    "cli": {"core", "errors", "show", "tables", "data", "train", "checkpoint", "export", "predictor", "learner", "cli"},
}
HEAVY = ("matplotlib", "pyarrow", "rich", "jinja2", "typer", "PIL")
FILES = sorted(SOURCE.rglob("*.py"))


def imported(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.append(node.module or "")
    return found


def at_the_top(tree: ast.Module) -> list[str]:
    return [name for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom) for name in imported(node)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_each_room_imports_only_what_it_may(file: Path):
    tree = ast.parse(file.read_text())
    room = file.relative_to(SOURCE).parts[0]
    if room in MAY_IMPORT:
        rooms = {name.split(".")[1] for name in imported(tree) if name.startswith("onecycle.")}
        assert rooms <= MAY_IMPORT[room]
    if room != "basics.py":
        heavy = [name for name in at_the_top(tree) if name.split(".")[0] in HEAVY]
        assert not heavy or (
            file.relative_to(SOURCE).as_posix() in ("cli/app.py", "cli/options.py")
            and set(heavy) <= {"typer", "typer.core"}
        ), f"import {heavy} where it is used"
    if file == SOURCE / "optim" / "schedules.py":
        assert "torch" not in imported(tree)


def test_every_public_name_can_be_had():
    for name in onecycle.__all__:
        assert getattr(onecycle, name) is getattr(onecycle.basics, name)
    assert set(onecycle.basics.__all__) - set(onecycle.__all__) == {
        *("torch", "nn", "F", "optim", "np", "plt", "gzip", "pickle", "Path", "partial", "TensorDataset", "DataLoader"),
    }
    assert all(hasattr(onecycle.basics, name) for name in onecycle.basics.__all__)
    assert set(onecycle.__all__) <= set(dir(onecycle))
    with pytest.raises(AttributeError, match="module 'onecycle' has no attribute 'Lerner'"):
        _ = onecycle.Lerner


def test_the_public_names_are_these():
    assert sorted(onecycle.__all__) == sorted(
        [
            *("AdamW", "CSVLog", "Callback", "CheckpointConfig", "ClassificationInterpretation", "Config", "DataBunch"),
            *("EMA", "EarlyStopping", "GradientAccumulation", "GradientClip", "LRFindResult"),
            *(
                "Learner",
                "MLP",
                "OneCycleError",
                "Record",
                "SaveBest",
                "TabularModel",
                "accuracy",
                "average_precision",
                "error_rate",
                "f1_score",
                "fetch",
                "load_learner",
                "load_pickle",
                "load_predictor",
            ),
            *("mae", "mean_absolute_error", "mean_squared_error", "mnist", "epoch_metric", "mse", "r2_score", "rmse"),
            *("roc_auc", "root_mean_squared_error", "top_k_accuracy"),
        ]
    )


def test_public_names_are_documented():
    for name in onecycle.__all__:
        thing = getattr(onecycle, name)
        if name == "AdamW":
            continue  # a partial of torch's
        assert thing.__doc__, name
        if isinstance(thing, type):
            for method, function in vars(thing).items():
                if not method.startswith("_") and callable(function):
                    assert function.__doc__, f"{name}.{method}"


def test_importing_the_library_imports_nothing_heavy():
    code = "import sys, onecycle; print([m for m in ('torch', 'numpy', *sys.argv[1:]) if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_training_imports_no_plots_and_no_tables():
    code = (
        "import sys, torch, onecycle\n"
        "data = onecycle.DataBunch.create((torch.rand(64, 4), torch.arange(64) % 2))\n"
        "onecycle.Learner(data, onecycle.MLP(4, 2)).fit(1, 1e-3)\n"
        "print([m for m in sys.argv[1:] if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"

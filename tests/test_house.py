"""The structure of the source, read off its syntax trees: who imports whom, and what is public."""

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def test_no_import_runs_in_a_circle():
    names = {
        ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__") for file in FILES
    }
    imports: dict[str, set[str]] = {}
    for file in FILES:
        name = ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")
        statements = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom)]
        found = {f"{node.module}.{alias.name}" for node in statements for alias in node.names}
        imports[name] = (found | {node.module or "" for node in statements}) & names - {name, "onecycle"}
    while leaves := [name for name, targets in imports.items() if not targets & imports.keys()]:
        for name in leaves:
            del imports[name]
    assert not imports


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_private_name_is_imported(file: Path):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("onecycle"):
            assert not [
                alias.name for alias in node.names if alias.name.startswith("_") and alias.name != "__version__"
            ]


def test_every_public_name_is_importable():
    for name in onecycle.__all__:
        assert getattr(onecycle, name) is getattr(onecycle.basics, name)
    assert {name for name in vars(onecycle.basics) if not name.startswith("_")} - set(onecycle.__all__) == {
        *("torch", "nn", "F", "optim", "np", "plt", "gzip", "pickle", "Path", "partial", "TensorDataset", "DataLoader"),
    }
    assert set(onecycle.__all__) <= set(dir(onecycle))
    with pytest.raises(AttributeError, match="module 'onecycle' has no attribute 'Lerner'"):
        _ = onecycle.Lerner


def test_the_public_names_are_these():
    assert sorted(onecycle.__all__) == sorted(
        [
            "Config",
            "DataBunch",
            "fetch",
            "load_pickle",
            "mnist",
            "Learner",
            "Predictor",
            "load_learner",
            "load_predictor",
            "CheckpointConfig",
            "MLP",
            "TabularModel",
            "AdamW",
            "Callback",
            "CSVLog",
            "EMA",
            "EarlyStopping",
            "Fit",
            "GradientAccumulation",
            "GradientClip",
            "SaveBest",
            "accuracy",
            "error_rate",
            "mean_absolute_error",
            "mean_squared_error",
            "root_mean_squared_error",
            "top_k_accuracy",
            "average_precision",
            "epoch_metric",
            "f1_score",
            "mae",
            "mse",
            "r2_score",
            "rmse",
            "roc_auc",
            "ClassificationInterpretation",
            "LRFindResult",
            "Record",
            "Recorder",
            "RegressionInterpretation",
            "DataError",
            "DeviceError",
            "FileError",
            "ModelError",
            "NonFiniteLossError",
            "OneCycleError",
            "OutputError",
            "SettingError",
            "UnsafeFileError",
        ]
    )


def public_callables() -> list[tuple[str, Any]]:
    """Every public function, class and method, by name."""
    found: list[tuple[str, Any]] = []
    for name in onecycle.__all__:
        thing = getattr(onecycle, name)
        found.append((name, thing))
        if isinstance(thing, type):
            for method, function in vars(thing).items():  # methods of a base class are checked there
                function = getattr(function, "__func__", function)
                overrides = any(
                    hasattr(base, method) for base in thing.__mro__[1:] if base.__module__.startswith("onecycle")
                )
                if not method.startswith("_") and inspect.isfunction(function) and not overrides:
                    found.append((f"{name}.{method}", function))
    return found


@pytest.mark.parametrize(
    ("name", "thing"), public_callables(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_each_public_callable_documents_each_of_its_parameters(name: str, thing: Any):
    doc = inspect.getdoc(thing)
    assert doc, f"{name} has no docstring"
    if isinstance(thing, type) and (issubclass(thing, Exception) or thing.__init__ is object.__init__):
        return
    parameters = [p for p in inspect.signature(thing).parameters if p not in ("self", "cls", "args", "kwargs")]
    section = re.search(r"^(?:Args|Attributes):\n((?: +.*\n?|\n)*)", doc, re.M)
    documented = set(re.findall(r"^    \**(\w+):", section[1] if section else "", re.M))
    if dataclasses.is_dataclass(thing):
        sections = re.findall(r"^(?:Args|Attributes):\n((?: +.*\n?|\n)*)", doc, re.M)
        documented = {found for text in sections for found in re.findall(r"^    \**(\w+):", text, re.M)}
    missing = [parameter for parameter in parameters if parameter not in documented]
    assert not missing, f"{name} does not document {', '.join(missing)}"


@pytest.mark.parametrize("name", onecycle.__all__)
def test_each_public_callable_has_an_example(name: str):
    thing = getattr(onecycle, name)
    if not (isinstance(thing, type) and issubclass(thing, Exception)):
        assert "Example:\n" in (inspect.getdoc(thing) or ""), name


def test_importing_the_library_imports_nothing_heavy():
    code = "import sys, onecycle; print([m for m in ('torch', 'numpy', *sys.argv[1:]) if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.slow
def test_training_imports_no_plots_and_no_tables():
    code = (
        "import sys, torch, onecycle\n"
        "data = onecycle.DataBunch.create((torch.rand(64, 4), torch.arange(64) % 2))\n"
        "onecycle.Learner(data, onecycle.MLP(4, 2)).fit(1, 1e-3)\n"
        "print([m for m in sys.argv[1:] if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"

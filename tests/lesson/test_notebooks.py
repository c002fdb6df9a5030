"""The notebooks of the lesson: what is in them, and that they still run."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ["lesson5_sgd_mnist.ipynb", "lesson5_sgd_mnist.zh-CN.ipynb"]
DRAWING = (4, 19, 23, 27, 29, 31, 32)  # the lesson's cells that draw


def read(name: str) -> NotebookNode:
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    nbformat.validate(notebook)
    return notebook


def of_kind(notebook: NotebookNode, kind: str) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def problems(notebook: NotebookNode) -> list[str]:
    """The errors in its outputs, and what it wrote to stderr other than where the data went."""
    outputs = [output for cell in of_kind(notebook, "code") for output in cell.outputs]
    errors = [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]
    stderr = [output.text for output in outputs if output.get("name") == "stderr"]
    return errors + [text for text in stderr if not text.startswith("writing ")]


@pytest.mark.parametrize("name", NAMES)
def test_the_lessons_cells_are_all_there_in_order(cells: list[str], name: str):
    lesson = {cell.id: cell.source for cell in read(name).cells if cell.id.startswith("lesson-")}
    assert lesson == {f"lesson-{i:02}": source for i, source in enumerate(cells)}
    assert list(lesson) == sorted(lesson)


@pytest.mark.parametrize("name", NAMES)
def test_fetch_is_called_once_before_the_data_is_opened(name: str):
    calls = [cell.id for cell in of_kind(read(name), "code") if "fetch(" in cell.source or "gzip.open" in cell.source]
    assert calls == ["fetch", "lesson-03"]


def test_both_languages_hold_the_same_cells():
    english, chinese = map(read, NAMES)
    assert [(cell.id, cell.cell_type) for cell in english.cells] == [
        (cell.id, cell.cell_type) for cell in chinese.cells
    ]
    assert [c.source for c in of_kind(english, "code")] == [c.source for c in of_kind(chinese, "code")]
    assert all(a.source != b.source for a, b in zip(*(of_kind(n, "markdown") for n in (english, chinese)), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_notebook_was_executed_without_errors(name: str):
    notebook = read(name)
    code = of_kind(notebook, "code")
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not problems(notebook)
    assert "PosixPath('/tmp/onecycle/data/mnist/mnist.pkl.gz')" in str(notebook), "run `make notebooks`"
    assert not any("execution" in cell.metadata for cell in code), "times do not belong into a notebook"
    assert (EXAMPLES / name).stat().st_size < 600_000


@pytest.mark.parametrize("name", NAMES)
def test_each_plot_is_shown_once(name: str):
    outputs = {cell.id: cell.outputs for cell in of_kind(read(name), "code")}
    images = {id: sum("image/png" in output.get("data", {}) for output in found) for id, found in outputs.items()}
    drawn = {id for id, count in images.items() if count}
    assert {f"lesson-{i:02}" for i in DRAWING} <= drawn
    assert {id: images[id] for id in drawn} == dict.fromkeys(drawn, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # tests run side by side
    notebook = read(name)
    for cell in of_kind(notebook, "code"):
        cell.outputs = []
    NotebookClient(notebook, kernel_name="python3", timeout=600).execute(cwd=str(tmp_path))
    assert not problems(notebook)
    assert not list(tmp_path.iterdir()), "it leaves files behind"

"""Execute the lesson's notebooks in place; `make notebooks` runs this."""

import os
import shutil
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HOME = Path("/tmp/onecycle")  # an output shows it, so it is the same on every machine; made here, removed at the end


def execute(path: Path, folder: Path) -> None:
    """Run all cells of the notebook `path` in `folder` and keep the outputs, without times and versions."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, kernel_name="python3", timeout=600, record_timing=False)
    client.execute(cwd=str(folder))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


def main() -> None:
    """Execute both notebooks, each as on a fresh machine: no data yet, no GPU, one core."""
    os.environ.update(ONECYCLE_HOME=str(HOME), ONECYCLE_DEVICE="cpu", OMP_NUM_THREADS="1")
    for path in sorted(Path(__file__).parent.glob("*.ipynb")):
        HOME.mkdir()
        try:
            print(f"executing {path.name}")
            execute(path, HOME)
        finally:
            shutil.rmtree(HOME)


if __name__ == "__main__":
    main()

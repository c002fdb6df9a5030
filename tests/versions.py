"""The fast tests on the lowest and on the newest versions of Python, torch and the other packages.

    python tests/versions.py [lowest] [newest] [--torch 2.13.0] [-- ARGUMENTS OF PYTEST]

The lowest are those that pyproject.toml states, on the lowest Python that it states; the newest are what the package
index has, on the newest Python of this machine, but for torch, whose newest builds bring gigabytes for GPUs: `--torch`
says which. Each set has an environment of its own, .venv-lowest and .venv-newest, which is made anew if pyproject.toml
has changed. Prints a table of what ran, and exits with 1 if a test failed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
SHOWN = ("torch", "numpy", "pyarrow", "matplotlib")
PYTHONS = [f"3.{minor}" for minor in range(11, 30)]


def lower_bound(requirement: Requirement) -> str:
    """Return the lowest version that a requirement takes."""
    return next(part.version for part in requirement.specifier if part.operator == ">=")


def python_for(kind: str, lowest: str) -> str:
    """Return the interpreter to use: the lowest that is supported, or the newest that runs here."""
    for version in [lowest] if kind == "lowest" else reversed(PYTHONS):
        found = shutil.which(f"python{version}")
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    return sys.executable


def environment(kind: str, project: dict[str, Any], torch: str) -> Path:
    """Make the environment of a set of versions, unless it is there; return its Python."""
    folder, needed = ROOT / f".venv-{kind}", [Requirement(text) for text in project["dependencies"]]
    python, stamp, source = folder / "bin" / "python", folder / ".ready", (ROOT / "pyproject.toml").read_text()
    if stamp.exists() and stamp.read_text() == source + torch:
        return python
    bounds = {each.name: lower_bound(each) for each in needed}
    if kind == "lowest":
        torch = f"{bounds['torch']}.0"
    pins = [f"{name}=={version}.*" for name, version in bounds.items() if name != "torch" and kind == "lowest"]
    print(f"{kind}: setting up {folder.name}", flush=True)
    interpreter = python_for(kind, project["requires-python"].removeprefix(">="))
    subprocess.run([interpreter, "-m", "venv", "--clear", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"torch=={torch}"], check=True)
    subprocess.run([*pip, f"torch=={torch}", *pins, "-e", f"{ROOT}[dev]"], check=True)
    stamp.write_text(source + torch)
    return python


def versions(python: Path) -> dict[str, str]:
    """Return what is installed in an environment."""
    code = (
        "import json, platform, importlib.metadata as m;"
        f"print(json.dumps({{'python': platform.python_version()}} | {{name: m.version(name) for name in {SHOWN}}}))"
    )
    return json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> int:
    """Run the tests."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=["lowest", "newest"])
    parser.add_argument("--torch", default="2.13.0", help="the newest torch to take")
    arguments, rest = sys.argv[1:], list[str]()
    if "--" in arguments:
        arguments, rest = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    options = parser.parse_args(arguments)
    project, failed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"], False
    rows = [["", "python", *SHOWN, "tests"]]
    for kind in options.kinds:
        python = environment(kind, project, options.torch)
        command = [python, "-m", "pytest", "-n", "2", "-m", "not slow", *rest]
        result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        sys.stdout.write(result.stdout)
        last = result.stdout.strip().splitlines()[-1]
        rows.append([kind, *versions(python).values(), last])
        failed |= result.returncode != 0
    for row in rows:
        print("| " + " | ".join(row) + " |")
    return failed


if __name__ == "__main__":
    sys.exit(main())

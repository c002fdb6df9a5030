"""The lesson's cells, with the changes that they need to run here."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def cells() -> list[str]:
    """The lesson's 33 code cells, for `onecycle` instead of the lesson's library, and on any device."""
    written = json.loads(Path(__file__).with_name("cells.json").read_text(encoding="utf-8"))
    return [cell.replace("fastai.basics", "onecycle.basics").replace(".cuda()", ".to(data.device)") for cell in written]

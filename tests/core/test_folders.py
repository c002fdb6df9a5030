"""A folder that is there whole or not at all."""

import os
import stat
from pathlib import Path

import pytest
import torch

from onecycle.core.folders import read_folder, write_folder


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_says_who_can_read_it(tmp_path: Path, mask: int):
    before = os.umask(mask)
    try:
        write_folder(tmp_path / "new" / "kept", "checkpoint", {"model": {"w": torch.ones(2)}}, {"a": 1}, replace=False)
    finally:
        os.umask(before)
    folder = tmp_path / "new" / "kept"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert modes.pop("kept") == 0o777 & ~mask
    assert set(modes.values()) == {0o666 & ~mask}
    assert list((tmp_path / "new").iterdir()) == [folder]
    state, tensors = read_folder(folder, "checkpoint")
    assert (state, tensors["model"]["w"].tolist()) == ({"a": 1}, [1, 1])


def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path):
    with pytest.raises(TypeError):
        write_folder(tmp_path / "kept", "checkpoint", {}, {"a": object()}, replace=False)
    assert not list(tmp_path.iterdir())

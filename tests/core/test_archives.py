"""Folders and zip files of tensors: written whole, always the same, and read with bounds."""

import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from conftest import Net, seeded
from onecycle import MLP, DataBunch, Learner, accuracy, load_learner, load_predictor
from onecycle.core.archives import read_folder, remove_folder, write_folder
from onecycle.errors import FileError, OutputError

pytestmark = pytest.mark.slow


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


def test_a_folder_that_fails_in_the_middle_leaves_nothing(tmp_path: Path):
    with pytest.raises(TypeError):
        write_folder(tmp_path / "kept", "checkpoint", {}, {"a": object()}, replace=False)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    write_folder(tmp_path / "kept", "checkpoint", {"model": {"w": torch.ones(2)}}, {"a": 1}, replace=False)
    return tmp_path / "kept"


def test_what_onecycle_did_not_write_is_not_replaced(kept: Path):
    (kept / "notes.txt").write_text("mine")
    for change in (
        lambda: write_folder(kept, "checkpoint", {}, {"a": 2}, replace=True),
        lambda: remove_folder(kept, "checkpoint"),
    ):
        with pytest.raises(OutputError, match=r"kept: holds 'notes\.txt', which onecycle did not write; move it away"):
            change()
    assert read_folder(kept, "checkpoint")[0] == {"a": 1}
    (kept / "notes.txt").unlink()
    remove_folder(kept, "checkpoint")
    remove_folder(kept, "checkpoint")  # there is nothing to remove
    assert not list(kept.parent.iterdir())


def test_a_folder_behind_a_link_is_not_replaced_but_the_link_is(kept: Path):
    link = kept.with_name("link")
    link.symlink_to("kept")
    write_folder(link, "checkpoint", {}, {"a": 2}, replace=True)
    assert not link.is_symlink()
    assert [read_folder(path, "checkpoint")[0]["a"] for path in (kept, link)] == [1, 2]
    assert {path.name for path in kept.parent.iterdir()} == {"kept", "link"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes")
@pytest.mark.parametrize("name", ["manifest.json", "state.json", "model.safetensors"])
@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to("../x")]
)
def test_only_regular_files_are_read(kept: Path, name: str, make: Callable[[Path], None]):
    (kept / name).rename(kept.parent / "x")
    make(kept / name)
    with pytest.raises(
        FileError, match=rf"kept(/{name})?: (cannot be read|damaged \(0 bytes|a folder without manifest)"
    ):
        read_folder(kept, "checkpoint")


def test_what_a_killed_writer_left_is_no_obstacle(kept: Path):
    """It was killed when it removed the older folder, or had only begun to."""
    left = kept.with_name(".kept.0123456789abcdef.tmp")
    left.mkdir()
    (left / "state.json").touch()
    kept.rename(kept.with_name(".kept.replaced"))
    write_folder(kept, "checkpoint", {}, {"a": 2}, replace=False)
    write_folder(kept, "checkpoint", {}, {"a": 3}, replace=True)
    assert list(kept.parent.iterdir()) == [kept]


# --- zip files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def learn(toy: DataBunch, here: Path) -> Learner:
    return Learner(toy, seeded(MLP(20, 8, 4)), metrics=accuracy, silent=True)


@pytest.mark.parametrize("make", [lambda: MLP(20, 8, 4), Net])
def test_a_zip_predicts_as_the_folder_does(toy: DataBunch, here: Path, make: Callable[[], torch.nn.Module]):
    learn = Learner(toy, make(), silent=True)
    folder, path = learn.export("b"), learn.export("deep/b.zip")
    assert path == Path("deep/b.zip")
    assert [entry.name for entry in Path("deep").iterdir()] == ["b.zip"]
    rows = toy.valid_ds.tensors[0]
    assert torch.equal(
        load_predictor(path, device="cpu").get_preds(rows)[0], load_predictor(folder, device="cpu").get_preds(rows)[0]
    )
    with zipfile.ZipFile(path) as packed:
        assert packed.testzip() is None
        assert packed.namelist()[0] == "manifest.json"
        assert sorted(packed.namelist()) == sorted(entry.name for entry in folder.iterdir())
        for entry in packed.infolist():
            assert (entry.compress_type, entry.date_time[0]) == (zipfile.ZIP_STORED, 1980)
            assert packed.read(entry) == (folder / entry.filename).read_bytes()


def test_the_same_content_is_the_same_file(learn: Learner):
    assert learn.export("a.zip").read_bytes() == learn.export("b.ZIP").read_bytes()
    load_learner("b.ZIP", device="cpu")


def test_only_a_bundle_is_replaced(learn: Learner):
    learn.export("a.zip")
    with pytest.raises(OutputError, match=r"a.zip exists; give another name, or .* \(overwrite=True\)"):
        learn.export("a.zip")
    learn.export("a.zip", overwrite=True)
    Path("mine.zip").write_bytes(b"years of work")
    with zipfile.ZipFile("other.zip", "w") as packed:
        packed.writestr("thesis.txt", "years of work")
    for name in ("mine.zip", "other.zip"):
        before = Path(name).read_bytes()
        with pytest.raises(OutputError, match=f"{name} exists and is not a bundle that onecycle wrote"):
            learn.export(name, overwrite=True)
        assert Path(name).read_bytes() == before
    Path("file").write_text("")
    with pytest.raises(OutputError, match=r"file/a.zip: cannot be written"):
        learn.export("file/a.zip")


def test_a_zip_that_fails_in_the_middle_leaves_nothing(learn: Learner, monkeypatch: pytest.MonkeyPatch):
    whole = learn.export("a.zip").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipFile, "open", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OutputError, match=r"b.zip: cannot be written \(No space left\)"):
            learn.export("b.zip")
    assert [entry.name for entry in Path().iterdir()] == ["a.zip"]
    assert Path("a.zip").read_bytes() == whole


def test_every_damage_is_found(learn: Learner):
    path = learn.export("a.zip")
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as packed:
        contents = [(e.header_offset + 30 + len(e.filename) + 20, e.file_size) for e in packed.infolist()]
    for cut in (0, 1, 30, len(whole) // 2, len(whole) - 64, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileError, match=r"a.zip"):
            load_learner(path)
    for start, size in contents:
        for position in (start, start + size // 2, start + size - 1):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(FileError, match=r"a.zip: not a bundle that .* \(it does not end with its SHA-256\)"):
                load_learner(path)
    for position in {0, *range(len(whole) - 500, len(whole))}:  # zip's own fields, and the SHA-256
        for bit in range(8):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 1 << bit]) + whole[position + 1 :])
            with pytest.raises(FileError, match=r"a.zip: not a bundle that .* \(it does not end with its SHA-256\)"):
                load_learner(path)
    path.unlink()
    with pytest.raises(FileError, match=r"a.zip: no such file"):
        load_learner(path)


def packed_again(path: Path, change: Callable[[dict[str, bytes]], object], **options) -> None:
    with zipfile.ZipFile(path) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    change(files)
    with zipfile.ZipFile(path, "w", **options) as packed:
        for name, content in files.items():
            packed.writestr(name, content)


@pytest.mark.parametrize(
    "name", ["../slip.json", "/tmp/slip.json", "a/b.json", "..", ".hidden", "C:slip.json", "..\\slip.json", "folder/"]
)
def test_a_name_outside_of_the_bundle(learn: Learner, here: Path, name: str):
    path = learn.export("in/a.zip")
    packed_again(path, lambda files: files.update({name: b"slip"}))
    before = sorted(here.rglob("*"))
    with pytest.raises(FileError, match="which is outside of the bundle; nothing was unpacked"):
        load_learner(path)
    assert sorted(here.rglob("*")) == before


def test_a_file_that_the_manifest_does_not_name(learn: Learner):
    path = learn.export("a.zip")
    packed_again(path, lambda files: files.update({"model.pkl": b"cos\nsystem\n(S'touch owned'\ntR."}))
    with pytest.raises(FileError, match=r"a.zip: holds 'model.pkl', which is not in its manifest.json"):
        load_learner(path)
    assert not Path("owned").exists()


def test_a_file_that_is_missing(learn: Learner):
    path = learn.export("a.zip")
    packed_again(path, lambda files: files.pop("model.safetensors"))
    with pytest.raises(FileError, match=r"a.zip/model.safetensors: cannot be read"):
        load_learner(path)
    packed_again(path, lambda files: files.pop("manifest.json"))
    with pytest.raises(FileError, match=r"a.zip/manifest.json: cannot be read"):
        load_learner(path)


def test_a_file_of_another_size_than_the_manifest_says(learn: Learner):
    path = learn.export("a.zip")
    packed_again(path, lambda files: files.update({"model.safetensors": files["model.safetensors"] + b"\0"}))
    with pytest.raises(FileError, match=r"a.zip/model.safetensors: damaged \(.* bytes, not those of manifest.json\)"):
        load_learner(path)


def test_a_bomb_is_not_inflated(learn: Learner):
    path = learn.export("a.zip")
    packed_again(
        path, lambda files: files.update({"model.safetensors": bytes(10**7)}), compression=zipfile.ZIP_DEFLATED
    )
    with pytest.raises(FileError, match="manifest.json is compressed or encrypted, which onecycle never does"):
        load_learner(path)


def test_damage_in_a_zip_that_was_packed_by_hand(learn: Learner):
    path = learn.export("a.zip")
    packed_again(path, lambda files: None)
    load_learner(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(FileError, match=r"a.zip: not a zip file, or a damaged one \(Bad CRC-32"):
        load_learner(path)


def test_a_file_twice_and_too_many(learn: Learner):
    path = learn.export("a.zip")
    packed_again(path, lambda files: None)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as packed:
        packed.writestr("state.json", b"{}")
    with pytest.raises(FileError, match="a.zip: holds a file twice"):
        load_learner(path)
    learn.export("b.zip")
    packed_again(Path("b.zip"), lambda files: files.update({"STATE.json": b"{}"}))
    with pytest.raises(FileError, match="b.zip: holds a file twice"):
        load_learner("b.zip")
    packed_again(Path("b.zip"), lambda files: files.update({f"{i}.json": b"" for i in range(100)}))
    with pytest.raises(FileError, match="b.zip: holds 104 files; expected at most 64"):
        load_learner("b.zip")


def test_entries_that_share_their_bytes(learn: Learner):
    """Many names for one place in the file: a bomb without compression."""
    with zipfile.ZipFile("a.zip", "w") as packed:
        packed.writestr("a", bytes(10**5))
        packed.filelist += [_same(packed.filelist[0], f"b{i}") for i in range(40)]
        packed._didModify = True
    with pytest.raises(FileError, match=r"a.zip: says that it holds more bytes than it has|overlap"):
        load_learner("a.zip")


def _same(entry: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    other = zipfile.ZipInfo(name)
    for field in ("CRC", "compress_size", "file_size", "header_offset", "external_attr", "create_system"):
        setattr(other, field, getattr(entry, field))
    return other


def test_a_size_that_is_a_lie(learn: Learner):
    path = learn.export("a.zip")
    packed_again(path, lambda files: None)
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")  # the last entry of the directory
    content[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"a.zip: says that it holds more bytes than it has"):
        load_learner(path)


def test_a_manifest_without_end(learn: Learner):
    path = learn.export("a.zip")
    packed_again(path, lambda files: files.update({"manifest.json": b" " * (2**20 + 1)}))
    with pytest.raises(FileError, match=r"a.zip: its manifest.json has more than 1,048,576 bytes"):
        load_learner(path)

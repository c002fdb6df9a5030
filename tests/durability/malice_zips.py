"""Zip files that mean harm, as bundles and as arrays; malice.py feeds them."""

import gzip
import io
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from data.pickle_samples import CALLS
from durability.malice_files import EITHER, PLACES, READ, REFUSED, Case
from onecycle.data.sources import open_source

Edit = Callable[[bytes], bytes]
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"


def patch(signature: bytes, at: int, form: str, *values: int, first: bool = False) -> Edit:
    """Overwrite fields of the last (or first) record of a kind."""

    def edit(content: bytes) -> bytes:
        place = (content.find if first else content.rfind)(signature) + at
        new = struct.pack(form, *values)
        return content[:place] + new + content[place + len(new) :]

    return edit


def adding(name: str, content: bytes = b"slip", mode: int = 0o644, **fields: Any) -> Edit:
    """One more entry."""

    def edit(whole: bytes) -> bytes:
        sink = io.BytesIO(whole)
        entry = zipfile.ZipInfo(name)
        entry.filename, entry.external_attr, entry.create_system = name, mode << 16, 3
        for field, value in fields.items():
            setattr(entry, field, value)
        with warnings.catch_warnings(), zipfile.ZipFile(sink, "a") as packed:
            warnings.simplefilter("ignore")  # names that come twice
            packed.writestr(entry, content)
        return sink.getvalue()

    return edit


def again(change: Callable[[dict[str, bytes]], object], method: int = zipfile.ZIP_STORED) -> Edit:
    """Packed anew with other files in it."""

    def edit(whole: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(whole)) as packed:
            files = {name: packed.read(name) for name in packed.namelist()}
        change(files)
        with zipfile.ZipFile(sink := io.BytesIO(), "w", method) as packed:
            for name, content in files.items():
                packed.writestr(name, content)
        return sink.getvalue()

    return edit


def largest(files: dict[str, bytes]) -> str:
    """The name of the file that matters."""
    return next(name for name in files if name in ("model.safetensors", "x.npy"))


def crowd(count: int, name: Callable[[int], bytes]) -> Edit:
    """A directory of so many entries, all of one place: 50 bytes each."""

    def edit(whole: bytes) -> bytes:
        head = whole[whole.find(CENTRAL) :][:46]
        entries = b"".join(
            head[:28] + struct.pack("<HHH", len(name(i)), 0, 0) + head[34:42] + bytes(4) + name(i) for i in range(count)
        )
        start = whole[: whole.find(CENTRAL)]
        return (
            start
            + entries
            + END
            + struct.pack("<HHHHIIH", 0, 0, count % 65536, count % 65536, len(entries), len(start), 0)
        )

    return edit


def zip64(**lies: int) -> Edit:
    """A record for large files before the end, that may lie."""

    def edit(whole: bytes) -> bytes:
        at = whole.rfind(END)
        _, _, _, count, size, start, _ = struct.unpack("<HHHHIIH", whole[at + 4 : at + 22])
        found = {"length": 44, "count": count, "size": size, "start": start, "disk": 0, "place": at} | lies
        record = b"PK\x06\x06" + struct.pack(
            "<QHHIIQQQQ",
            found["length"],
            45,
            45,
            found["disk"],
            0,
            found["count"],
            found["count"],
            found["size"],
            found["start"],
        )
        locator = b"PK\x06\x07" + struct.pack("<IQI", found["disk"], found["place"], 1)
        return (
            whole[:at]
            + record
            + locator
            + END
            + struct.pack("<HHHHIIH", 0, 0, 2**16 - 1, 2**16 - 1, 2**32 - 1, 2**32 - 1, 0)
        )

    return edit


def bomb(size: int, method: int) -> Edit:
    """The file that matters becomes so many bytes of nothing."""
    return again(lambda files: files.update({largest(files): bytes(size)}), method)


def extra(content: bytes) -> Edit:
    """Another entry that has an extra field."""
    return adding("x", extra=content)


NAMES = [
    *("../slip", "../../slip", "../../../slip", "../../../../slip", "/slip", "//slip", "/tmp/../slip", "a/../../slip", "./slip"),
    *("..", ".", "", ".slip", "..\\slip", "C:\\slip", "C:slip", "\\\\host\\slip", "a/b", "folder/", "~/slip", "slip\0.json", "\n"),
    *("CON", "state.json ", "STATE.JSON", "x" * 60_000, "\u202enosj.etats", "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")),
]  # fmt: skip
LINK = 0o120777
ZIPS: dict[str, Edit] = {
    **{f"an entry called {name[:20]!a}": adding(name) for name in NAMES},
    **{f"cut at {part}/16": lambda whole, part=part: whole[: len(whole) * part // 16] for part in range(16)},
    **{f"without its last {count} bytes": lambda whole, count=count: whole[:-count] for count in (1, 2, 10, 21, 22, 40)},
    "a link to a file": adding("link", b"/etc/passwd", LINK),
    "a link, and a file through it": lambda whole: adding("d/slip")(adding("d", b"../..", LINK)(whole)),
    "a link in place of a file": lambda whole: adding("state.json", b"../../state.json", LINK)(whole),
    "a device": adding("null", b"", 0o020666),
    "a pickle": adding("model.pkl", pickle.dumps(CALLS["system"][0])),
    "a zip in it": lambda whole: adding("inner.zip", whole)(whole),
    "the same name twice": lambda whole: again(dict)(whole) and adding("model.safetensors")(adding("x.npy")(whole)),
    **{f"a bomb, {name}": bomb(5 * 10**7, method) for name, method in (
        ("deflated", zipfile.ZIP_DEFLATED), ("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA))},
    "no files": lambda whole: _empty(),
    "100 files": lambda whole: again(lambda files: files.update({f"f{i}": b"" for i in range(100)}))(whole),
    "100,000 entries": crowd(100_000, lambda i: b"%d" % i),
    "100,000 entries of one name": crowd(100_000, lambda i: b"x"),
    "entries that share their bytes": crowd(40, lambda i: b"%d.npy" % i),
    "a size of 2 GiB": patch(CENTRAL, 20, "<II", 2**31, 2**31, first=True),
    "a size of 4 GiB": patch(CENTRAL, 20, "<II", 2**32 - 1, 2**32 - 1, first=True),
    "a smaller size": patch(CENTRAL, 20, "<II", 10, 10, first=True),
    "unpacked larger than packed": patch(CENTRAL, 24, "<I", 2**30, first=True),
    "a size of 0": patch(CENTRAL, 20, "<II", 0, 0, first=True),
    "a wrong sum": patch(CENTRAL, 16, "<I", 1, first=True),
    "an encrypted entry": patch(CENTRAL, 8, "<H", 1, first=True),
    "a strongly encrypted entry": patch(CENTRAL, 8, "<H", 0x41, first=True),
    "a patch": patch(CENTRAL, 8, "<H", 0x20, first=True),
    "an encrypted entry in its head": patch(LOCAL, 6, "<H", 1, first=True),
    "deflated, it says": patch(CENTRAL, 10, "<H", 8, first=True),
    "an unknown method": patch(CENTRAL, 10, "<H", 99, first=True),
    "a later version": patch(CENTRAL, 6, "<H", 99, first=True),
    "another name in its head": patch(LOCAL, 30, "<4s", b"evil", first=True),  # pyright: ignore[reportArgumentType]
    "a head beyond the end": patch(CENTRAL, 42, "<I", 2**31, first=True),
    "a head in another's bytes": patch(CENTRAL, 42, "<I", 60, first=True),
    "two entries, one head": patch(CENTRAL, 42, "<I", 0),
    "a long name in its head": patch(LOCAL, 26, "<HH", 65535, 65535, first=True),
    "a long name in the directory": patch(CENTRAL, 28, "<H", 65535),
    "a long comment in the directory": patch(CENTRAL, 32, "<H", 65535),
    "a directory beyond the end": patch(END, 16, "<I", 2**31),
    "a directory before the beginning": patch(END, 12, "<I", 2**31),
    "a directory of 0 bytes": patch(END, 12, "<I", 0),
    "a directory that begins later": patch(END, 16, "<I", 4),
    "another disk": patch(END, 4, "<HH", 7, 7),
    "a comment that is not there": patch(END, 20, "<H", 65535),
    "a comment with an end in it": lambda whole: whole[:-2] + struct.pack("<H", 22) + END + bytes(18),
    "an end in a comment in an end": lambda whole: whole[:-2] + struct.pack("<H", 44) + (END + bytes(18)) * 2,
    "sizes of 2^63": zip64(count=2**63, size=2**63, start=2**63), "sizes of 2^64": zip64(size=2**64 - 1, start=2**64 - 1),
    "a record that is nowhere": zip64(place=2**62), "a record of 2^63 bytes": zip64(length=2**63, size=2**40),
    "a large size without an extra": patch(CENTRAL, 24, "<I", 2**32 - 1, first=True),
    "extra: 2^63 bytes": lambda whole: patch(CENTRAL, 20, "<II", 2**32 - 1, 2**32 - 1)(extra(struct.pack("<HHQQ", 1, 16, 2**63, 2**63))(whole)),
    "extra: cut short": lambda whole: patch(CENTRAL, 20, "<II", 2**32 - 1, 2**32 - 1)(extra(struct.pack("<HHI", 1, 4, 9))(whole)),
    "extra: longer than it is": extra(struct.pack("<HH", 1, 60_000)),
    "a name that is not text": lambda whole: patch(CENTRAL, 46, "<2s", b"\xff\xfe")(patch(CENTRAL, 8, "<H", 0x800)(adding("xx")(whole))),  # pyright: ignore[reportArgumentType]
    "a pickle in its place": lambda whole: pickle.dumps(CALLS["system"][0]),
    "gzip in its place": gzip.compress,
    "twice, one after the other": lambda whole: whole[:-22] + whole[:20],
    "only an end": lambda whole: END + bytes(18),
    "nothing but ends": lambda whole: (END + bytes(18)) * 4_000,
}  # fmt: skip
HARMLESS = {  # the directory is what counts, and what it leads to is checked
    **dict.fromkeys(("unpacked larger than packed", "an encrypted entry in its head", "a long name in the directory")),
    **dict.fromkeys(("a long comment in the directory", "another disk", "a comment that is not there", "a record that is nowhere")),
    "something before it": lambda whole: b"#!/bin/sh\ntouch canary\n" + whole,
    "something before it that is a zip": lambda whole: whole + whole,
    "another number of entries": patch(END, 8, "<HH", 60_000, 60_000),
    "a comment of 65,535 bytes": lambda whole: whole[:-2] + struct.pack("<H", 65535) + b"c" * 65535,
    "in the large form": zip64(),
}  # fmt: skip


def _empty() -> bytes:
    with zipfile.ZipFile(sink := io.BytesIO(), "w"):
        pass
    return sink.getvalue()


def zips() -> Iterator[Case]:
    """Each as a bundle and as arrays; of arrays a name is only a key, and no file is written."""
    bundle = PLACES["zip"].read
    for kind, good, name, read in (
        ("zip", "bundle.zip", "it.zip", bundle),
        ("npz", "a.npz", "a.npz", lambda: open_source("a.npz")),
    ):
        for what, edit in (ZIPS | {what: edit for what, edit in HARMLESS.items() if edit}).items():
            yield Case(kind, what, partial(_edited, good, name, edit), read, EITHER if what in HARMLESS else REFUSED)
        yield Case(kind, "a good zip", partial(_edited, good, name, lambda whole: whole), read, READ)


def _edited(good_name: str, name: str, edit: Edit, good: Path) -> None:
    Path(name).write_bytes(edit((good / good_name).read_bytes()))

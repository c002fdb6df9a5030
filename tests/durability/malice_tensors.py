"""Safetensors that mean harm, in folders that are signed as they should be; malice.py feeds them."""

import io
import json
import pickle
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data.pickle_samples import CALLS
from durability.malice_files import EITHER, PLACES, READ, REFUSED, Case, put

Tensors = Callable[[Any, bytes], bytes]


def packed(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file of any header: bytes, or what becomes JSON."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + body


def first(**changes: Any) -> Tensors:
    """The first tensor says something else of itself."""
    return lambda head, body: packed({**head, min(head): {**head[min(head)], **changes}}, body)


def spanning(*offsets: Any) -> Tensors:
    """The first tensor has other offsets."""
    return first(data_offsets=list(offsets))


def raw(content: bytes, length: int | None = None) -> Tensors:
    """Another header before the same bytes."""
    return lambda head, body: packed(content, body, length)


def also(**entries: Any) -> Tensors:
    """More tensors than there were."""
    return lambda head, body: packed({**head, **entries}, body)


def none(shape: list[int], dtype: str = "F32", at: int = 1616) -> dict[str, Any]:
    """A tensor of no bytes."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [at, at]}


def twice(head: Any, body: bytes) -> bytes:
    """A name that is there twice."""
    text = json.dumps(head)
    return packed(
        (text[:-1] + f', "{min(head)}": ' + json.dumps(none([0]) | {"data_offsets": [0, 0]}) + "}").encode(), body
    )


def saved_by_torch() -> bytes:
    """A pickle, as torch.save packs it."""
    torch.save({"weight": CALLS["system"][0]}, sink := io.BytesIO())
    return sink.getvalue()


TENSORS: dict[str, Tensors] = {
    **{f"{end} bytes": lambda head, body, end=end: packed(head, body)[:end] for end in (0, 1, 7, 8, 9, 100, 500, 1000, 1900)},
    **{f"a header of {length} bytes": raw(b"{}", length) for length in (0, 1, 3, 10**6, 10**8, 10**8 + 1, 2**31, 2**63, 2**64 - 1)},
    **{f"a header of {content[:12]!r}": raw(content) for content in (
        b"", b"[]", b"null", b"3", b'"x"', b"{", b'{"a"', b"{}", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"{'a': 1}", b'{"a": NaN}', b'{"a": 1}',
        b'{"a\xff": {}}', b'{"\\ud800": {}}', b"[" * 100_000, b'{"a":' * 100_000, b"[" * 100_000 + b"]" * 100_000, b" " * 10**6, bytes(1000),
        b'{"__metadata__": 3}', b'{"__metadata__": {"a": 3}}', b'{"__metadata__": {"a": {"b": {}}}}', b'{"__metadata__": {"a": "b"}}',
    )},
    **{f"dtype {dtype}": first(dtype=dtype) for dtype in (
        "F99", "object", "O", "", None, 3, ["F32"], "f32", "F8_E4M3", "F8_E8M0", "F4", "F6_E2M3", "F6_E3M2", "I128", "F64", "U8")},
    **{f"offsets {offsets}"[:40]: spanning(*offsets) for offsets in (
        (0, 10**9), (0, 2**63), (0, 2**64), (0, 10**40), (-64, 0), (0, -64), (64, 0), (0.0, 64.0), ("0", "64"), (0,), (0, 64, 64), (), (None, None),
        (0, 128), (0, 32), (32, 64), (16, 80), (64, 128), (1552, 1616), (1616, 1680), (True, 64), (1e400, 64))},
    **{f"shape {shape}"[:40]: first(shape=shape) for shape in (
        [10**12], [2**32, 2**32], [2**62], [2**63], [2**64], [10**40], [-16], [-4, -4], [1.5], ["16"], [], [17], [4, 5], "16", 16, None, [[16]], [True],
        [0], [0, 2**62], [16, 1e400])},
    **{f"no bytes, shape {shape}"[:40]: also(none=none(shape)) for shape in ([0, 2**62], [2**40, 0, 2**40], [0, 2**63 - 1, 2**63 - 1], [0] * 99, [0, 2**64])},
    **{f"no bytes, dtype {dtype}": also(none=none([0], dtype)) for dtype in ("F4", "F6_E2M3", "U64", "C64", "F8_E5M2")},
    **{f"without {key}": (lambda head, body, key=key: packed({**head, min(head): {k: v for k, v in head[min(head)].items() if k != key}}, body))
       for key in ("dtype", "shape", "data_offsets")},
    "1,000 dimensions": first(shape=[1] * 1_000 + [16]), "60,000 dimensions": first(shape=[1] * 60_000 + [16]),
    "a hole": lambda head, body: packed({**head, min(head): {**head[min(head)], "data_offsets": [0, 60], "shape": [15]}}, body),
    "bytes after the last": lambda head, body: packed(head, body + bytes(4)), "bytes missing": lambda head, body: packed(head, body[:-4]),
    "all at one place": lambda head, body: packed({name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in head}, body[:16]),
    "names that lead outside": lambda head, body: packed({f"../../{name}": about for name, about in head.items()}, body),
    "a name of 1 MB": also(**{"n" * 10**6: none([0])}), "names of dunders": also(**{"__class__.__init__": none([0])}),
    "30,000 tensors": also(**{f"t{i}": none([0]) for i in range(30_000)}),
    "no tensors": lambda head, body: packed({}), "an unknown field": first(code="__import__('os').system('touch canary')"),
    "a pickle": lambda head, body: pickle.dumps(CALLS["system"][0]), "torch.save": lambda head, body: saved_by_torch(),
    "a name twice": twice, "30 MB of blanks": lambda head, body: packed(json.dumps(head).encode() + b" " * (3 * 10**7), body),
}  # fmt: skip
HARMLESS = ("30 MB of blanks", "an unknown field", "a name twice")  # the numbers are there all the same


def rewritten(edit: Tensors, name: str = "model.safetensors") -> Callable[[Path], object]:
    """Change a safetensors file in a folder."""

    def change(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (size,) = struct.unpack("<Q", content[:8])
        (folder / name).write_bytes(edit(json.loads(content[8 : 8 + size]), content[8 + size :]))

    return change


def tensor_files() -> Iterator[Case]:
    """Each in a bundle, in its zip file, in a checkpoint and in a run."""
    for kind, place in PLACES.items():
        for name, edit in TENSORS.items():
            expected = EITHER if name in HARMLESS else REFUSED
            yield Case(f"tensors, {kind}", name, partial(put, place, rewritten(edit)), place.read, expected)
        yield Case(f"tensors, {kind}", "a good one", partial(put, place, lambda folder: None), place.read, READ)
    for kind, name in (("checkpoint", "optimizer"), ("run", "optimizer"), ("run", "record"), ("run", "generators")):
        for what in (
            "shape [0]",
            "a header of 10000000 bytes",
            "offsets (0, 1000000000)",
            "dtype F99",
            "no tensors",
            "torch.save",
            "30,000 tensors",
        ):
            if what in TENSORS:
                change = rewritten(TENSORS[what], f"{name}.safetensors")
                expected = EITHER if what == "no tensors" and name != "record" else REFUSED  # moments begin anew
                yield Case(
                    f"tensors, {kind}",
                    f"{what}, {name}",
                    partial(put, PLACES[kind], change),
                    PLACES[kind].read,
                    expected,
                )

"""What tells the data of one fit from that of another: a fit is not resumed with other rows."""

import hashlib
from typing import Any

import torch
from torch import Tensor

from onecycle.data.batches import Batches, InMemoryLoader

_PIECE = 2**24  # bytes that are hashed at once


def fingerprint(loader: Batches | None) -> dict[str, Any]:
    """Rows, batch size, and the SHA-256 of a loader's data where it is at hand, else the kind of data set."""
    if loader is None:
        return {"rows": 0}
    about = {"rows": len(loader.dataset), "bs": loader.batch_size, "batches": len(loader)}
    if isinstance(loader, InMemoryLoader):
        return about | {"sha256": _of_tensors(loader.tensors)}
    files = getattr(loader.dataset, "files", None)  # of rows on the disk, whose manifest knows
    if isinstance(files, list):
        return about | {"sha256": [file.sha256 for file in files]}  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] -- a StoredRows
    return about | {"data set": type(loader.dataset).__name__}


def _of_tensors(tensors: list[Tensor]) -> str:
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        rows = max(_PIECE // max(tensor[:1].numel() * tensor.element_size(), 1), 1)
        for piece in tensor.split(rows):
            total.update(piece.contiguous().cpu().view(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()

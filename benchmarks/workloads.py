"""What the peers train on, and the data made once for all of them.

    python benchmarks/workloads.py NAME SCALE FOLDER    writes x, y, xv, yv as .npy files; a process of its own

Rows are float32, labels int64. Nothing is imported here but what every process needs.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLASSES = 10
NOISE = 0.3  # the share of the labels of "rows" that are random


@dataclass(frozen=True)
class Workload:
    """One job: network, batch size, peak learning rate and how many rows there are at scale 1.

    `sizes` are the layers of a perceptron; a conv net has `channels` too: a 3×3 convolution of stride 2 to each of
    them, then a linear layer, on images of 28×28. Without `valid_rows` there is no validation.
    """

    name: str
    about: str
    bs: int
    lr: float
    rows: int
    valid_rows: int
    sizes: tuple[int, ...]
    channels: tuple[int, ...] = ()


WORKLOADS = {
    w.name: w
    for w in (
        Workload("lesson", "MNIST, Linear 784-50-10 with ReLU, batch 64", 64, 1e-2, 50_000, 10_000, (784, 50, 10)),
        Workload(
            "wide", "synthetic rows of 100, MLP 100-512-512-10, batch 1,024", 1024, 3e-3, 1_000_000, 100_000,
            (100, 512, 512, 10),
        ),
        Workload(
            "conv", "MNIST 28×28, conv 8 and 16 (3×3, stride 2), linear, batch 64", 64, 5e-3, 50_000, 10_000,
            (784, 10), (8, 16),
        ),
        Workload(
            "rows", "synthetic rows of 100, MLP 100-50-10, batch 256", 256, 3e-3, 10_000_000, 0, (100, 50, 10)
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A workload with its arrays: x (n, features) and y (n,) to train on, xv and yv to validate."""

    workload: Workload
    x: Any
    y: Any
    xv: Any
    yv: Any

    @property
    def bs(self) -> int:
        """Rows in a batch."""
        return self.workload.bs

    @property
    def steps(self) -> int:
        """Batches in an epoch; the short last one is dropped."""
        return len(self.x) // self.bs

    @property
    def megabytes(self) -> float:
        """What the four arrays take."""
        return sum(a.nbytes for a in (self.x, self.y, self.xv, self.yv)) / 1e6


def load(name: str, folder: Path, rows: int | None = None) -> Job:
    """Read the arrays of a workload, or only the first `rows` to train on."""
    import numpy as np

    def first(part: str) -> Any:
        if rows is None:
            return np.load(folder / f"{part}.npy")
        with (folder / f"{part}.npy").open("rb") as file:  # not by a memory map: its pages would count as memory
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            count = min(rows, shape[0])
            return np.fromfile(file, dtype, count * int(np.prod(shape[1:]))).reshape(count, *shape[1:])

    return Job(WORKLOADS[name], first("x"), first("y"), np.load(folder / "xv.npy"), np.load(folder / "yv.npy"))


def make(name: str, scale: float, folder: Path) -> None:
    """Write the arrays of a workload, `scale` times its rows."""
    import numpy as np

    workload = WORKLOADS[name]
    rows, valid_rows = (n and max(4 * workload.bs, int(n * scale)) for n in (workload.rows, workload.valid_rows))
    if name in ("lesson", "conv"):
        import onecycle

        data = onecycle.mnist(device="cpu")
        (x, y), (xv, yv) = ([t.numpy() for t in ds.tensors] for ds in (data.train_ds, data.valid_ds))
        x, y, xv, yv = x[:rows], y[:rows], xv[:valid_rows], yv[:valid_rows]
    else:
        random = np.random.default_rng(0)
        teacher = random.standard_normal((workload.sizes[0], CLASSES), dtype=np.float32)
        x = random.standard_normal((rows, workload.sizes[0]), dtype=np.float32)
        xv = random.standard_normal((valid_rows, workload.sizes[0]), dtype=np.float32)
        y, yv = ((part @ teacher).argmax(1) for part in (x, xv))
        if name == "rows":  # else a small set is learnt by heart, and its gradients shrink until they are denormal
            y = np.where(random.random(rows) < NOISE, random.integers(0, CLASSES, rows), y)
    folder.mkdir(parents=True, exist_ok=True)
    for part, array in (("x", x), ("y", y), ("xv", xv), ("yv", yv)):
        np.save(folder / f"{part}.npy", array)


if __name__ == "__main__":
    make(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]))

"""Many short fits in one process: memory and open files stay as they are.

    python tests/durability/fits.py [--fits 2000]

Each fit is kept in a folder, and resumed. Memory is what the process has after a third of the fits, and at the end;
Python's garbage is collected every ten fits, since what counts is what stays.
"""

import argparse
import gc
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from durability.training import learner
from onecycle import CheckpointConfig


def resident() -> int:
    """The memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def files() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def torture(fits: int, folder: Path) -> tuple[float, int]:
    """How much memory grew, as a share, and how many more files are open."""
    before = (0, 0)
    for number in range(fits):
        learn = learner("fast" if number % 2 else "eager")
        learn.fit_one_cycle(1, 1e-2, checkpoint=CheckpointConfig(folder / "run", overwrite=True))
        again = learner()
        again.callbacks = learn.callbacks
        again.resume(folder / "run")
        shutil.rmtree(folder / "run")
        if number % 10 == 0:
            gc.collect()
        if number + 1 == max(fits // 3, 1):
            gc.collect()
            before = (resident(), files())
    gc.collect()
    return resident() / before[0] - 1, files() - before[1]


def main() -> int:
    """Print what was found; 1 where memory grew by a hundredth or files stay open."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=2_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        growth, more = torture(options.fits, Path(folder))
    print(f"{options.fits:,} fits: memory grew by {growth:.2%}, {more} more files are open")
    return int(growth >= 0.01 or more > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Many generated models, losses and callbacks: the other engines do as eager does, or say why they stayed eager.

    python tests/engine/torture.py [--cases 10000] [--from 0] [--workers 2] [--case N]

`--case N` runs one case again, and prints its text.
"""

import argparse
import os
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["CI"] = "1"  # no live bar
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from engine.differences import GOOD, SAME_CAPTURED, SAME_ERROR, Result, judged, summary
from engine.generated import source


def judge(number: int) -> Result:
    """The verdict on a case, in a folder of its own."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        try:
            return judged(number, Path(folder))
        except Exception as error:  # a fault of the test itself, or state that a case left behind
            return Result(number, "FAULT OF THE TEST", f"{type(error).__name__}: {error}")


def is_bad(result: Result) -> bool:
    """Whether it must not be so."""
    return result.verdict not in GOOD or (result.standard and result.verdict not in (SAME_CAPTURED, SAME_ERROR))


def main() -> int:
    """Print every case that is not as it should be, and the figures; 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--case", type=int)
    options = parser.parse_args()
    if options.case is not None:
        print(source(options.case))
        result = judge(options.case)
        print(result)
        return int(is_bad(result))
    started, results = time.perf_counter(), []
    with get_context("spawn").Pool(options.workers, maxtasksperchild=500) as pool:
        numbers = range(options.first, options.first + options.cases)
        for result in pool.imap(judge, numbers, chunksize=10):
            results.append(result)
            if is_bad(result):
                print(f"case {result.number}: {result.verdict}: {result.detail}", flush=True)
            if len(results) % 500 == 0:
                bad = sum(map(is_bad, results))
                print(
                    f"{len(results):,} of {options.cases:,}, {bad} bad, {time.perf_counter() - started:.0f} s",
                    flush=True,
                )
    print(summary(results, time.perf_counter() - started))
    return int(any(map(is_bad, results)))


if __name__ == "__main__":
    sys.exit(main())

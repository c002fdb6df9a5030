"""Many generated models, losses and callbacks: the other engines do as eager does, or say why they stayed eager.

    python tests/engine/torture.py [--cases 10000] [--from 0] [--workers 2] [--case N]

`--case N` runs one case again, and prints its text. Cases run in processes of their own, 200 in each: one that ends its
process is found, too.
"""

import argparse
import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ["CI"] = "1"  # no live bar
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from engine.differences import GOOD, SAME_CAPTURED, SAME_ERROR, Result, judged, summary
from engine.generated import is_standard, source

SECONDS_A_CASE = 60
CASES_A_PROCESS = 200
PROCESS_ENDED = "CRASH OF THE PROCESS"


def judge(number: int) -> Result:
    """The verdict on a case, in a folder of its own."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(SECONDS_A_CASE)
    with TemporaryDirectory() as folder:
        try:
            return judged(number, Path(folder))
        except Exception as error:  # a fault of the test itself, or state that a case left behind
            return Result(number, "FAULT OF THE TEST", f"{type(error).__name__}: {error}")
        finally:
            signal.alarm(0)


def _hangs(*_: object) -> None:
    raise RuntimeError(f"the case takes more than {SECONDS_A_CASE} s")


def is_bad(result: Result) -> bool:
    """Whether it must not be so."""
    return result.verdict not in GOOD or (result.standard and result.verdict not in (SAME_CAPTURED, SAME_ERROR))


def serve(first: int, last: int) -> None:
    """Judge the cases from `first` to before `last`; write a line of JSON for each."""
    faulthandler.enable()
    for number in range(first, last):
        print("RESULT " + json.dumps(asdict(judge(number))), flush=True)


def results_of(first: int, last: int) -> list[Result]:
    """The same in another process; where it ends in the middle, in one more process from the next case on."""
    results: list[Result] = []
    while first + len(results) < last:
        number = first + len(results)
        command = [sys.executable, "-B", __file__, "--serve", str(number), str(last)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
        results += [Result(**json.loads(line)) for line in lines]
        if (ended := first + len(results)) < last:
            detail = f"it ended with {done.returncode}: {done.stderr[-2000:]}"
            results.append(Result(ended, PROCESS_ENDED, detail, standard=is_standard(ended)))
    return results


def all_results(first: int, cases: int, workers: int) -> Iterator[list[Result]]:
    """The results of many cases, a process's at a time."""
    starts = range(first, first + cases, CASES_A_PROCESS)
    with ThreadPoolExecutor(workers) as pool:
        waiting = [pool.submit(results_of, at, min(at + CASES_A_PROCESS, first + cases)) for at in starts]
        for done in as_completed(waiting):
            yield done.result()


def main() -> int:
    """Print every case that is not as it should be, and the figures; 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--from", type=int, default=0, dest="first")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--case", type=int)
    parser.add_argument("--serve", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(*options.serve)
        return 0
    if options.case is not None:
        print(source(options.case))
        result = judge(options.case)
        print(result)
        return int(is_bad(result))
    started, results = time.perf_counter(), list[Result]()
    for some in all_results(options.first, options.cases, options.workers):
        results += some
        for result in filter(is_bad, some):
            print(f"case {result.number}: {result.verdict}: {result.detail or result.reason}")
        bad, seconds = sum(map(is_bad, results)), time.perf_counter() - started
        print(f"{len(results):,} of {options.cases:,} cases, {bad} bad, {seconds:.0f} s", flush=True)
    print(summary(results, time.perf_counter() - started))
    return int(any(map(is_bad, results)))


if __name__ == "__main__":
    sys.exit(main())

"""The measurements: fresh processes, and epochs of all peers in turn, on idle cores and beside a busy process."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# with it, the bytecode of a package that is not installed, as this one, would be made at every start
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


class GoneError(Exception):
    """A peer cannot take part (any more); the message says why."""


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def beside(count: int = 1) -> Generator[None]:
    """Keep as many cores busy in the block as there are processes."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


class Worker:
    """A worker process and the line to it."""

    def __init__(self, peer: str, workload: str, folder: Path, limit: float, rows: int | None = None) -> None:
        self.name, self.limit, self._rest = peer, limit, b""
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", peer, workload, folder, *([str(rows)] if rows else [])],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def epoch(self, epochs: int = 1) -> dict[str, Any]:
        """Have it run and give its answer. Raises GoneError where none comes within the limit."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{epochs}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # its last words, or its exit code, say why
        deadline = time.perf_counter() + self.limit
        descriptor = self.process.stdout.fileno()
        while b"\n" not in self._rest:
            wait = deadline - time.perf_counter()
            if wait <= 0 or not select.select([descriptor], [], [], wait)[0]:
                raise GoneError(f"stopped after the limit of {self.limit:g} s")
            if not (found := os.read(descriptor, 65536)):
                raise GoneError(f"its process ended with code {self.process.wait()}")
            self._rest += found
        line, _, self._rest = self._rest.partition(b"\n")
        answer = json.loads(line)
        self.name = answer.get("name", self.name)
        if "missing" in answer:
            raise GoneError(answer["missing"].rstrip("."))
        return answer

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def bare_torch() -> dict[str, float]:
    """What `import torch` alone takes in a fresh process: seconds and megabytes, medians of three."""
    found: list[tuple[float, float]] = []
    for _ in range(3):
        started = time.perf_counter()
        code = "import torch, worker; print(worker.peak_mb())"
        out = subprocess.run([sys.executable, "-c", code], cwd=HERE, check=True, capture_output=True, text=True).stdout
        found.append((time.perf_counter() - started, float(out)))
    seconds, megabytes = zip(*found, strict=True)
    return {"seconds": sorted(seconds)[1], "peak_mb": sorted(megabytes)[1]}


def side_by_side(
    workload: str, peers: Iterable[str], folder: Path, rounds: int, fresh_rounds: int, limit: float, busy: bool = True
) -> dict[str, dict[str, Any]]:
    """Each peer's fresh processes, then steady epochs, the peers in turn in every round; the same beside a process."""
    found: dict[str, dict[str, Any]] = {
        peer: {"name": peer, "fresh": [], "peak_mb": [], "first_accuracy": [], "epochs": [], "busy": [], "accuracy": []}
        for peer in peers
    }
    for number in range(fresh_rounds):
        for peer, figures in found.items():
            if "missing" not in figures:
                _fresh(Worker(peer, workload, folder, limit), figures)
                say(f"{workload}, fresh process {number + 1} of {fresh_rounds}: {_last(figures, 'fresh')}")
    workers: dict[str, Worker] = {}
    try:
        for number in range(rounds + 1):  # the first warms up and is not counted
            for peer, figures in found.items():
                if "missing" in figures:
                    continue
                if peer not in workers:  # one after another: starting takes all cores
                    workers[peer] = Worker(peer, workload, folder, limit)
                _steady(workers[peer], figures, "epochs" if number else None)
                say(f"{workload}, round {number} of {rounds}: {_last(figures, 'epochs')}")
        with beside():
            for number in range(rounds if busy else 0):
                for peer, figures in found.items():
                    if "missing" not in figures:
                        _steady(workers[peer], figures, "busy")
                        say(f"{workload}, busy round {number + 1} of {rounds}: {_last(figures, 'busy')}")
    finally:
        for worker in workers.values():
            worker.close()
    return found


def by_rows(
    peers: Iterable[str], sizes: Iterable[int], folder: Path, rounds: int, limit: float, at_least: int
) -> list[dict[str, Any]]:
    """The `rows` workload: each peer at each size, in turn; a small size trains more epochs, `at_least` rows in all."""
    cases = [
        {"peer": peer, "name": peer, "rows": size, "epochs": max(1, at_least // size), "seconds": []}
        for size in sizes
        for peer in peers
    ]
    workers: list[Worker] = []
    try:
        for number in range(rounds + 1):
            for i, case in enumerate(cases):
                if "missing" in case:
                    continue
                if not number:
                    workers.append(Worker(case["peer"], "rows", folder, limit, case["rows"]))
                worker = workers[i]
                try:
                    answer = worker.epoch(case["epochs"])
                except GoneError as error:
                    case |= {"missing": str(error), "name": worker.name}
                    worker.close()
                else:
                    case |= {key: answer[key] for key in ("name", "peak_mb", "data_mb")}
                    if number:
                        case["seconds"].append(answer["seconds"])
                say(f"rows, round {number} of {rounds}: {case['rows']:,} rows, {_last(case, 'seconds')}")
    finally:
        for worker in workers:
            worker.close()
    return cases


def _fresh(worker: Worker, figures: dict[str, Any]) -> None:
    try:
        answer = worker.epoch()
        figures["fresh"].append(time.perf_counter() - worker.started)
        figures["peak_mb"].append(answer["peak_mb"])
        figures["first_accuracy"].append(answer["accuracy"])
        figures |= {key: answer[key] for key in ("name", "note", "package", "data_mb", "gpu_mb")}
    except GoneError as error:
        figures |= {"missing": str(error), "name": worker.name}
    finally:
        worker.close()


def _steady(worker: Worker, figures: dict[str, Any], key: str | None) -> None:
    try:
        answer = worker.epoch()
    except GoneError as error:
        figures |= {"missing": str(error), "name": worker.name}
        worker.close()
        return
    if key:
        figures[key].append(answer["seconds"])
        figures["accuracy"].append(answer["accuracy"])


def _last(figures: dict[str, Any], key: str) -> str:
    seconds = figures[key][-1:]
    what = f"missing, {figures['missing']}" if "missing" in figures else f"{seconds[0]:.3f} s" if seconds else "warm"
    return f"{figures['name']}: {what}"

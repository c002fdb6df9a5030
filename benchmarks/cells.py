"""The whole lesson in a fresh process, cell by cell, beside a plain PyTorch script that does the same work.

    python benchmarks/cells.py [--rounds 5] [--json FILE]

Every round starts two processes, one after the other: the lesson's 33 cells over `onecycle.basics`, and those of
plain_lesson.py. Each cell is timed, the drawing of its figures to PNG files with it; so is the process from its start
to its end. The first round warms up and is not counted. CPU time, of all threads, stands beside the wall time: it
says more where something else runs on the machine. There the threads of one step wait for each other, and a process may
take many times as long; OMP_NUM_THREADS=1 is steadier.
"""

import argparse
import json
import linecache
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LESSON = HERE.parent / "tests" / "lesson" / "cells.json"
PLAIN = HERE / "plain_lesson.py"
SIDES = ("onecycle", "plain")
FASTAI_1 = (14.0, 17.0)  # seconds of the same cells with fastai 1.0.61 on such a machine: quoted, not measured here
AROUND = ("start of the process", "its end")

Figures = dict[str, list[float]]  # wall and cpu: seconds of each cell; draw: of the wall time, what the PNG files took


def lesson_cells() -> list[str]:
    """The lesson's cells, for onecycle and for any device."""
    written = json.loads(LESSON.read_text(encoding="utf-8"))
    changes = (("%matplotlib inline\n", ""), ("fastai.basics", "onecycle.basics"), (".cuda()", ".to(data.device)"))
    for old, new in changes:
        written = [cell.replace(old, new) for cell in written]
    return written


def plain_cells() -> tuple[list[str], list[str]]:
    """What each cell of plain_lesson.py does, in a few words, and its source."""
    _, *parts = PLAIN.read_text(encoding="utf-8").split("\n# %% ")
    heads, sources = zip(*(part.split("\n", 1) for part in parts), strict=True)
    return [head.split(" ", 1)[1] for head in heads], list(sources)


def run_cells(cells: list[str], folder: Path) -> Figures:
    """Run the cells in one namespace, and draw to `folder` the figures that each leaves open."""
    names: dict[str, Any] = {"__name__": "__main__"}
    found: Figures = {"wall": [time.perf_counter()], "cpu": [time.process_time()], "draw": [0.0]}  # first: the start
    for number, source in enumerate(cells):
        wall, cpu, name = time.perf_counter(), time.process_time(), f"cell {number}"
        linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name  # as notebooks do it
        exec(compile(source, name, "exec"), names)
        ran = time.perf_counter()
        _draw(folder, number)
        found["cpu"].append(time.process_time() - cpu)
        found["wall"].append(time.perf_counter() - wall)
        found["draw"].append(time.perf_counter() - ran)
    return found


def _draw(folder: Path, cell: int) -> None:
    if (plt := sys.modules.get("matplotlib.pyplot")) is None:
        return
    for number in plt.get_fignums():
        plt.figure(number).savefig(folder / f"{cell:02}-{number}.png")
    plt.close("all")


def fresh_process(side: str, home: Path) -> Figures:
    """Run one side in a process of its own; the start of the process comes before the cells, its end after them.

    Raises CalledProcessError where a cell fails, and RuntimeError where a figure was not drawn.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"MPLBACKEND": "Agg", "ONECYCLE_HOME": str(home), "CI": "1"}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed library has its bytecode, as torch has
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            [sys.executable, __file__, "--side", side, "--json", f"{folder}/figures.json"],
            env=environment,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
        found: Figures = json.loads(Path(folder, "figures.json").read_text())
        drawn = sorted(int(path.name[:2]) for path in Path(folder).glob("*.png"))
    if drawn != [4, 19, 23, 27, 29, 31, 32]:
        raise RuntimeError(f"{side} drew figures in the cells {drawn}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found["wall"][0] -= started  # processes share this clock
    for key, whole in (("wall", wall), ("cpu", cpu), ("draw", sum(found["draw"]))):
        found[key].append(whole - sum(found[key]))
    return found


def measure(rounds: int) -> dict[str, list[Figures]]:
    """Both sides in turn, `rounds` times."""
    found: dict[str, list[Figures]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as home:
        fetch = [sys.executable, "-c", 'import onecycle; onecycle.fetch("mnist")']
        subprocess.run(fetch, env=os.environ | {"ONECYCLE_HOME": home}, check=True)
        for number in range(rounds + 1):
            for side in SIDES:
                figures = fresh_process(side, Path(home))
                if number:
                    found[side].append(figures)
                spent = f"{sum(figures['wall']):.2f} s, CPU {sum(figures['cpu']):.2f} s"
                print(f"round {number} of {rounds}: {side} {spent}", file=sys.stderr, flush=True)
    return found


def table(found: dict[str, list[Figures]], labels: list[str]) -> str:
    """The medians as Markdown: cells, the process around them, and all of it."""

    def row(name: str, label: str, pick: Callable[[list[float]], float]) -> str:
        def median(side: str, key: str) -> float:
            return statistics.median(pick(figures[key]) for figures in found[side])

        walls, cpus, draws = ([median(side, key) for side in SIDES] for key in ("wall", "cpu", "draw"))
        drawing = f"{draws[0]:.3f} | {draws[1]:.3f}" if max(draws) >= 1e-3 else " | "
        cells = [name, label, *(f"{s:.3f}" for s in (*walls, walls[0] - walls[1], *cpus, cpus[0] - cpus[1])), drawing]
        return f"| {' | '.join(cells)} |"

    lines = [
        "| cell | what it does | onecycle s | plain s | difference s | onecycle CPU s | plain CPU s | difference CPU s "
        "| of it drawing s | plain drawing s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines.append(row("", AROUND[0], lambda seconds: seconds[0]))
    for number, label in enumerate(labels):
        lines.append(row(str(number), label, lambda seconds, number=number: seconds[1 + number]))
    lines.append(row("", AROUND[1], lambda seconds: seconds[-1]))
    lines.append(row("", "**all**", sum))
    totals = {side: [sum(figures["wall"]) for figures in found[side]] for side in SIDES}
    ours, plain = (statistics.median(totals[side]) for side in SIDES)
    times = " to ".join(f"{seconds / ours:.1f}" for seconds in FASTAI_1)
    lines += [
        "",
        f"Medians of {len(found['onecycle'])} rounds on {os.cpu_count()} cores. onecycle takes {ours:.2f} s "
        f"({min(totals['onecycle']):.2f} to {max(totals['onecycle']):.2f}), the plain script {plain:.2f} s "
        f"({min(totals['plain']):.2f} to {max(totals['plain']):.2f}), {plain / ours:.2f} times as long. "
        f"fastai 1.0.61 is quoted, not measured here: {FASTAI_1[0]:.0f} to {FASTAI_1[1]:.0f} s for the same cells, "
        f"{times} times as long.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the rounds and print the table; with --side, run the cells of one side in this process."""
    arguments = argparse.ArgumentParser(description="The lesson cell by cell, beside a plain PyTorch script.")
    arguments.add_argument("--rounds", type=int, default=5, help="counted rounds (at least 5)")
    arguments.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    labels, sources = plain_cells()
    if options.side:
        figures = run_cells(lesson_cells() if options.side == "onecycle" else sources, options.json.parent)
        options.json.write_text(json.dumps(figures))
        return
    found = measure(options.rounds)
    print(table(found, labels))
    if options.json:
        options.json.write_text(json.dumps({"parts": [AROUND[0], *labels, AROUND[1]], "rounds": found}, indent=1))


if __name__ == "__main__":
    main()

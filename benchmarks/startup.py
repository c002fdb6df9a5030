"""How long the command line and the library take to start: medians of processes that do nothing else."""

import argparse
import os
import statistics
import subprocess
import sys
import time

COMMANDS = ("train", "lr-find", "predict", "inspect", "report", "runs", "cache", "doctor")
ONECYCLE = [sys.executable, "-m", "onecycle"]
STARTS: dict[str, list[str]] = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import onecycle": [sys.executable, "-c", "import onecycle"],
    "from onecycle.basics import *": [sys.executable, "-c", "from onecycle.basics import *"],
    "onecycle --version": [*ONECYCLE, "--version"],
    "onecycle --help": [*ONECYCLE, "--help"],
    **{f"onecycle {name} --help": [*ONECYCLE, name, "--help"] for name in COMMANDS},
}


def start(command: list[str]) -> tuple[float, float]:
    """Return the seconds and the CPU seconds that a process takes."""
    started, before = time.perf_counter(), os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - started, cpu


def main() -> None:
    """Time each start and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in STARTS}
    for number in range(rounds + 1):  # the first one, which reads the files from the disk, does not count
        for name, command in STARTS.items():
            times[name].append(start(command))
        print(f"round {number} of {rounds}", file=sys.stderr)
    print(f"Python {sys.version.split()[0]}, medians of {rounds} rounds\n")
    print("| start | ms | min-max | CPU, ms |")
    print("| --- | ---: | ---: | ---: |")
    for name, (_, *measured) in times.items():
        wall, cpu = ([1000 * seconds for seconds in column] for column in zip(*measured, strict=True))
        spread = f"{min(wall):.0f}-{max(wall):.0f}"
        print(f"| {name} | {statistics.median(wall):.0f} | {spread} | {statistics.median(cpu):.0f} |")


if __name__ == "__main__":
    main()

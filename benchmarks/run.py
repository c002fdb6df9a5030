"""onecycle beside its peers: the same data, batch size and epochs for each, one process each.

    python benchmarks/run.py [--workloads lesson,wide,conv,rows] [--rounds 5] [--quick]

Writes results.json, and from it results.md and results.png (results-peers-gpu.* where there is a GPU, which all peers
that can then use). Workloads that are not asked for stay in it, with the date and the versions of their run. `--report`
only writes the last two again. What counts are the ratios within one run, not the seconds.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from measure import HERE, bare_torch, by_rows, say, side_by_side
from peers import NAMES
from report import write
from workloads import WORKLOADS

PACKAGES = ("onecycle", "torch", "fastai", "lightning", "skorch", "scikit-learn", "keras", "jax", "jaxlib", "numpy")
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="which, with commas between")
    parser.add_argument("--peers", default=",".join(NAMES), help="which, with commas between")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds of steady epochs")
    parser.add_argument("--fresh", type=int, default=3, help="fresh processes for each peer")
    parser.add_argument("--limit", type=float, default=300, help="seconds a peer may take for one answer")
    parser.add_argument("--scale", type=float, default=1.0, help="part of the rows to take")
    parser.add_argument("--quick", action="store_true", help="a smoke run: 2%% of the rows, one round")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--report", action="store_true", help="only write results.md and results.png again")
    found = parser.parse_args()
    found.workloads, found.peers = found.workloads.split(","), found.peers.split(",")
    for what, asked, known in (("workload", found.workloads, WORKLOADS), ("peer", found.peers, NAMES)):
        if unknown := set(asked) - set(known):
            parser.error(f"unknown {what} {', '.join(sorted(unknown))}; expected some of {', '.join(known)}")
    if found.quick:
        found.rounds, found.fresh, found.scale = 1, 1, 0.02
    if found.rounds < 1 or found.fresh < 1 or not 0 < found.scale <= 1:
        parser.error("--rounds and --fresh are at least 1, --scale is above 0 and at most 1")
    return found


def about(opts: argparse.Namespace) -> dict[str, Any]:
    """Where and how the run was made."""
    versions: dict[str, str] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "missing"
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": _gpu(),
        "rounds": opts.rounds,
        "fresh": opts.fresh,
        "scale": opts.scale,
        "versions": versions,
    }


def measured(name: str, opts: argparse.Namespace) -> dict[str, Any]:
    """All figures of one workload; its data lives in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=".data-", dir=HERE) as folder:
        say(f"{name}: making the data")
        subprocess.run([sys.executable, HERE / "workloads.py", name, str(opts.scale), folder], check=True)
        result: dict[str, Any] = {"about": WORKLOADS[name].about}
        if name == "rows":
            sizes = [max(1000, int(size * opts.scale)) for size in ROWS]
            ours = [peer for peer in opts.peers if peer.startswith("onecycle")]
            result["bs"] = WORKLOADS[name].bs
            result["cases"] = by_rows(ours, sizes, Path(folder), opts.rounds, opts.limit, sizes[-1] // 10)
        else:
            result["peers"] = side_by_side(name, opts.peers, Path(folder), opts.rounds, opts.fresh, opts.limit)
        return result


def main() -> None:
    """Measure, and write after each workload what there is."""
    opts = options()
    stem = "results-peers-gpu" if _gpu() else "results"
    file = opts.out / f"{stem}.json"
    if not opts.report:
        opts.out.mkdir(parents=True, exist_ok=True)
        before: dict[str, Any] = json.loads(file.read_text())["workloads"] if file.exists() else {}
        run = {"about run": about(opts), "bare_torch": bare_torch()}
        for name in opts.workloads:
            before[name] = measured(name, opts) | run
            file.write_text(
                json.dumps({"workloads": {key: before[key] for key in WORKLOADS if key in before}}, indent=1)
            )
    write(json.loads(file.read_text()), opts.out / stem)
    say(f"written: {file}, {stem}.md and {stem}.png beside it")


def _gpu() -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True)
    return found.stdout.splitlines()[0] if found.returncode == 0 and found.stdout else None


if __name__ == "__main__":
    main()

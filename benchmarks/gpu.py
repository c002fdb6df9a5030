"""All checks that need a GPU: its tests, the workloads beside peers, where a step's time goes, memory.

    bash benchmarks/gpu.sh [--minutes 8] [--out FOLDER] [--quick]

Each part runs in a process of its own with a time limit, so that one that fails or hangs costs the others nothing.
After each part results-gpu.json and results-gpu.md are written to the folder; both are printed at the end. Without a
GPU all parts run on the CPU, which shows that they work and measures nothing.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests"
PEERS = (
    "onecycle_eager",
    "onecycle_fast",
    "tight_loop",
    "cuda_graph",
    "compiled_loop",
    "lightning2",
    "jax_scan",
    "floor",
)
# what is not there without each package
NEEDED_FOR = {
    "numpy": "everything",
    "safetensors": "files and checkpoints",
    "matplotlib": "plots, and all tests",
    "pyarrow": "tables",
    "PIL": "images",
    "typer": "the command line",
    "rich": "the progress bar",
    "jinja2": "reports",
    "platformdirs": "nothing here: ONECYCLE_HOME is set",
    "pytest": "the tests",
    "torchmetrics": "the test of scores",
    "lightning": "the peer Lightning",
    "jax": "the peer JAX",
}
LIMITS = {"tests": 150.0, "lesson": 150.0, "step": 60.0, "wide": 120.0, "conv": 90.0, "rows": 60.0}  # seconds
ROUNDS = 5
Result = dict[str, Any]


def run_part(command: list[str], limit: float) -> Result:
    """Run a command whose last line of output is JSON; return that, the seconds, and why it failed if it did."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=max(limit, 0.1))
        failed = None if process.returncode == 0 else f"ended with code {process.returncode}: {_last_line(err)}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its workers too
        out, err = process.communicate()
        failed = f"stopped after {limit:.0f} s"
    result: Result = {"seconds": round(time.perf_counter() - started, 1)}
    try:
        result["result"] = json.loads(out.strip().splitlines()[-1])
    except (IndexError, ValueError):
        failed = failed or f"printed no result: {_last_line(err)}"
    return result | ({"failed": failed} if failed else {})


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing was printed"])[-1][:300]


def about(_scale: float) -> Result:
    """The machine, the versions, and what is missing here."""
    import torch

    found: Result = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpu": None,
        "cores": len(os.sched_getaffinity(0)),
        "missing": {name: what for name, what in NEEDED_FOR.items() if find_spec(name) is None},
    }
    for package in ("numpy", "lightning", "jax"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found |= {"gpu": card.name, "gpu_gib": round(card.total_memory / 2**30, 1)}
    return found


def tests(_scale: float) -> Result:
    """The results of all `*_gpu` tests, and the messages of those that fail."""
    files = sorted(map(str, TESTS.rglob("test_*_gpu.py")))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        options = ["-p", "no:cacheprovider", "-o", "filterwarnings=", f"--junitxml={report}"]
        done = subprocess.run([sys.executable, "-m", "pytest", *options, *files], capture_output=True, text=True)
        if not report.exists():
            raise RuntimeError(f"pytest did not run: {_last_line(done.stderr or done.stdout)}")
        cases = list(ElementTree.parse(report).iter("testcase"))
    found: Result = {"passed": 0, "failed": {}, "skipped": 0}
    for case in cases:
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        if problem is not None:
            found["failed"][f"{case.get('classname')}.{case.get('name')}"] = (problem.get("message") or "")[:500]
        else:
            found["skipped" if case.find("skipped") is not None else "passed"] += 1
    return found


def workload(name: str, scale: float, peers: list[str]) -> Result:
    """Steady epochs of all peers in turn, and the memory that each takes on the device."""
    from measure import side_by_side

    rounds, limit = (1, 30.0) if scale < 1 else (ROUNDS, 45.0)
    part = {"rows": 0.1, "wide": 0.3}.get(name, 1.0)  # of the rows: making the data takes time too
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, HERE / "workloads.py", name, str(scale * part), folder]
        subprocess.run(command, check=True)
        measured = side_by_side(name, peers, Path(folder), rounds, 1, limit, busy=False)
    return {
        peer: {key: found[key] for key in ("name", "missing", "epochs", "fresh", "accuracy", "gpu_mb") if key in found}
        for peer, found in measured.items()
    }


def step(scale: float) -> Result:
    """Where the time of the lesson's step goes with each engine: kernels, and the device's and the whole time."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    import onecycle

    on_gpu = torch.cuda.is_available()
    data = onecycle.mnist(bs=64, seed=1, device="cuda" if on_gpu else "cpu")
    x, y = (tensor[: int(50_000 * scale)] for tensor in data.train_ds.tensors)
    found: Result = {}
    for engine in ("eager", "fast"):
        learn = onecycle.Learner(
            onecycle.DataBunch.create((x, y), bs=64, seed=1, device=data.device),
            onecycle.MLP(784, 50, 10),
            silent=True,
            engine=engine,
        )
        learn.fit(1, 1e-3)  # captures and warms up
        steps = len(learn.data.train_dl)
        started = time.perf_counter()
        learn.fit(1, 1e-3)
        seconds = time.perf_counter() - started
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiled:
            learn.fit(1, 1e-3)
        events = [event for event in profiled.key_averages() if (_own_time(event, on_gpu)) > 0]
        events.sort(key=lambda event: -_own_time(event, on_gpu))
        found[engine] = {
            "us_a_step": seconds / steps * 1e6,
            "busy_us_a_step": sum(_own_time(event, on_gpu) for event in events) / steps,
            "kernels_a_step": sum(event.count for event in events) / steps,
            "largest": {event.key[:80]: _own_time(event, on_gpu) / steps for event in events[:12]},
            "note": _why_not_captured(learn.engine) or "as asked",
        }
    return found


def _why_not_captured(engine: Any) -> str | None:
    if (reason := getattr(engine, "fallback_reason", None)) is not None:
        return f"eager, because {reason}"
    reason = engine.captured.graph_fallback_reason() if getattr(engine, "captured", None) is not None else None
    return reason and f"no CUDA graphs, because {reason}"


def _own_time(event: Any, on_gpu: bool) -> float:
    """Microseconds of a kernel, or of an operator on the CPU."""
    return event.self_device_time_total if on_gpu else event.self_cpu_time_total


PARTS: dict[str, Callable[[float], Result]] = {"about": about, "tests": tests, "step": step}


def markdown(results: Result) -> str:
    """All figures as one page."""
    about = results["about"]
    card = (
        f"{about['gpu']}, {about['gpu_gib']} GiB" if about.get("gpu") else "**no GPU: nothing here is a measurement**"
    )
    lines = ["# onecycle on a GPU", ""]
    lines += [f"{card}; torch {about.get('torch')}, CUDA {about.get('cuda')}, Python {about.get('python')}.", ""]
    lines += [
        f"{name} is missing: without it there is not {what}.  " for name, what in about.get("missing", {}).items()
    ]
    lines += [
        "",
        "| part | | epoch, s | min–max | / fast | accuracy | device memory, MB |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for part, found in results["parts"].items():
        result = found.get("result", {})
        if "failed" in found:
            lines.append(f"| {part} | **{found['failed']}** | | | | | |")
        if part == "tests" and result:
            text = f"{result['passed']} passed, {len(result['failed'])} failed, {result['skipped']} skipped"
            lines.append(f"| tests | {text} | | | | | |")
        elif part != "step":
            lines += [f"| {part} | {_peer_cells(peer, result.get('onecycle_fast', {}))} |" for peer in result.values()]
    for engine, figures in results["parts"].get("step", {}).get("result", {}).items():
        lines += ["", f"## A step of the lesson, engine={engine} ({figures['note']})", ""]
        lines.append(
            f"{figures['us_a_step']:.0f} µs, of which the device is busy {figures['busy_us_a_step']:.0f} µs with "
            f"{figures['kernels_a_step']:.1f} kernels."
        )
        lines += ["", "| kernel | µs a step |", "|---|---:|"]
        lines += [f"| `{name.replace('|', '/')}` | {us:.2f} |" for name, us in figures["largest"].items()]
    failed = results["parts"].get("tests", {}).get("result", {}).get("failed", {})
    lines += [f"\n`{name}` failed: {message}" for name, message in failed.items()]
    return "\n".join(lines) + "\n"


def _peer_cells(peer: Result, fast: Result) -> str:
    if "missing" in peer:
        return f"{peer['name']}: {peer['missing']} | | | | |"
    seconds, memory = peer["epochs"], peer.get("gpu_mb")
    ratio = median(seconds) / median(fast["epochs"]) if fast.get("epochs") else None
    accuracy = peer["accuracy"][-1]
    cells = [peer["name"], f"{median(seconds):.4f}", f"{min(seconds):.4f}–{max(seconds):.4f}"]
    cells += [f"{ratio:.2f}" if ratio else "", f"{accuracy:.4f}" if accuracy else "", f"{memory:.0f}" if memory else ""]
    return " | ".join(cells)


def main() -> None:
    """Run all parts, or be one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8, help="for all parts together")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--parts", default=",".join(LIMITS), help="which, with commas between")
    parser.add_argument("--peers", default=",".join(PEERS), help="which, with commas between")
    parser.add_argument("--quick", action="store_true", help="a smoke run: 2%% of the rows, one round")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    scale = 0.02 if options.quick else 1.0
    if options.part:
        part, peers = options.part, options.peers.split(",")
        print(json.dumps(PARTS[part](scale) if part in PARTS else workload(part, scale, peers)))
        return
    deadline = time.perf_counter() + 60 * options.minutes
    me = [sys.executable, str(Path(__file__).resolve()), "--peers", options.peers]
    me += [*(["--quick"] if options.quick else []), "--part"]
    first = run_part([*me, "about"], min(60.0, 60 * options.minutes))
    results: Result = {"about": first.get("result", {"torch": first.get("failed")}), "parts": {}}
    options.out.mkdir(parents=True, exist_ok=True)
    for part in options.parts.split(","):
        print(f"{part}: {deadline - time.perf_counter():.0f} s are left", file=sys.stderr, flush=True)
        results["parts"][part] = run_part([*me, part], min(LIMITS[part], deadline - time.perf_counter()))
        (options.out / "results-gpu.json").write_text(json.dumps(results, indent=1))
        (options.out / "results-gpu.md").write_text(markdown(results))
    print(json.dumps(results))
    print(markdown(results))


if __name__ == "__main__":
    main()

"""One peer in a process of its own, told to run one epoch at a time.

    python benchmarks/worker.py PEER WORKLOAD FOLDER [ROWS]

Reads lines from stdin, each the number of epochs to run (1 for all but onecycle's), and answers each with a line of
JSON: {"seconds", "accuracy", "peak_mb", "gpu_mb", "data_mb", "name", "note", "package"}, or {"missing": why} and the
end.
"""

import json
import os
import sys
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any


def peak_mb() -> float:
    """Peak resident memory of this process so far.

    On Linux from the kernel's own mark: ru_maxrss of a child starts at what its parent had.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def gpu_mb() -> float | None:
    """Peak memory that torch took on the GPU in this process so far; None without torch or a GPU."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_reserved() / 1e6 if torch is not None and torch.cuda.is_initialized() else None


def peer_class(module: str) -> Any:
    """The class of a peer. Raises ImportError for whatever goes wrong on the way: packages fail in many ways."""
    try:
        return import_module(f"peers.{module}").Peer
    except Exception as error:
        raise ImportError(f"cannot be imported: {_one_line(error)}") from error


def main() -> None:
    """Serve until stdin ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a peer prints is no reply
    warnings.simplefilter("ignore")
    name, workload, folder, *rows = sys.argv[1:]

    def reply(what: dict[str, Any]) -> None:
        print(json.dumps(what), file=replies, flush=True)

    called: dict[str, str] = {}
    try:
        peer_type = peer_class(name)
        called = {"name": peer_type.name}
        from workloads import load

        job = load(workload, Path(folder), *map(int, rows))
        peer = peer_type(job)
        for line in sys.stdin:
            epochs = int(line)
            started = time.perf_counter()
            accuracy = peer.epoch(epochs) if epochs > 1 else peer.epoch()
            seconds = time.perf_counter() - started
            about = {"name": peer.name, "note": peer.note, "package": peer.package}
            memory = {"peak_mb": peak_mb(), "gpu_mb": gpu_mb(), "data_mb": job.megabytes}
            reply({"seconds": seconds, "accuracy": accuracy, **memory, **about})
    except Exception as error:
        reply({"missing": _one_line(error), **called})


def _one_line(error: Exception) -> str:
    kind = type(error).__name__
    text = (str(error).splitlines() or [""])[0][:200]
    return text if kind in ("Unsupported", "ImportError") else f"{kind}: {text}"


if __name__ == "__main__":
    main()

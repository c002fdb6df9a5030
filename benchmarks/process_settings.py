"""Measure what each change to the process in core/process.py gains: a workload with and without it.

    python benchmarks/process_settings.py [--rounds 5]

Prints a table in Markdown: medians of CPU seconds of new processes, in turn, one thread each.
"""

import argparse
import os
import statistics
import subprocess
import sys

# of each workload: its name, what turns the change off, and the code
WORKLOADS = [
    (
        "`gc.freeze`: the lesson's imports, finder, one epoch and four plots",
        "import gc; gc.freeze = gc.disable = gc.collect = lambda: None",
        "from onecycle.basics import *\n"
        "learn = Learner(mnist(bs=64, seed=0), MLP(784, 50, 10), metrics=accuracy, silent=True)\n"
        "learn.lr_find().plot(); learn.fit_one_cycle(1, 1e-2)\n"
        "learn.recorder.plot_lr(show_moms=True); learn.recorder.plot_losses(); learn.recorder.plot_metrics()",
    ),
    (
        "`without_compiler`: an optimizer and its state dict",
        "import os; os.environ['ONECYCLE_TUNE_PROCESS'] = '0'",
        "import torch\n"
        "from onecycle.optim.groups import leaves\n"
        "from onecycle.optim.optimizer import AdamW, GroupedOptimizer\n"
        "GroupedOptimizer(AdamW, [leaves(torch.nn.Linear(2, 2))]).state_dict()",
    ),
    (
        "`raise_malloc_trim_threshold`: 60 steps of a conv net, batches of 256",
        "import onecycle.train.loop as loop; loop.raise_malloc_trim_threshold = lambda: None",
        "import torch\n"
        "from torch import nn\n"
        "from onecycle import DataBunch, Learner\n"
        "x, y = torch.rand(256 * 20, 1, 28, 28), torch.arange(256 * 20) % 10\n"
        "convolutions = nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3, 2), nn.ReLU()\n"
        "data = DataBunch.create((x, y), bs=256, seed=0)\n"
        "model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(4608, 10))\n"
        "Learner(data, model, engine='eager', silent=True).fit(3, 1e-3)",
    ),
]


def seconds_of_cpu(*code: str) -> float:
    """CPU time of a new process that runs `code`, in seconds."""
    measure = "import resource; used = resource.getrusage(resource.RUSAGE_SELF)\nprint(used.ru_utime + used.ru_stime)"
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "\n".join([*code, measure])]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(run.stdout.splitlines()[-1])


def main() -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    print("| CPU seconds | with | without |\n| --- | ---: | ---: |")
    for name, turn_off, code in WORKLOADS:
        pairs = [(seconds_of_cpu(code), seconds_of_cpu(turn_off, code)) for _ in range(rounds)]
        tuned, untouched = (statistics.median(times) for times in zip(*pairs, strict=True))
        print(f"| {name} | {tuned:.2f} | {untouched:.2f} |", flush=True)


if __name__ == "__main__":
    main()

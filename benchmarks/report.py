"""results.md and results.png from the figures of a run."""

from pathlib import Path
from statistics import median
from typing import Any

OURS = ("onecycle_eager", "onecycle_fast")


def write(results: dict[str, Any], stem: Path) -> None:
    """Write `stem`.md and `stem`.png."""
    stem.with_suffix(".md").write_text(markdown(results))
    draw(results, stem.with_suffix(".png"))


def markdown(results: dict[str, Any]) -> str:
    """The tables."""
    parts = [
        "# onecycle compared with its peers",
        "The ratios matter, not the seconds. Epoch times are medians of several rounds. In each round every peer ran "
        "one epoch, one after the other, each in a process of its own. One warm-up round is not counted. Busy rounds "
        "are the same beside a process that keeps a core busy. An epoch is training and validation with accuracy, "
        "without a display. Peak memory is that of the process (not of the GPU) after its first epoch.",
    ]
    for name, workload in results["workloads"].items():
        about, torch = workload["about run"], workload["bare_torch"]
        packages = ", ".join(f"{package} {number}" for package, number in about["versions"].items())
        parts.append(f"## {name}: {workload['about']}")
        parts.append(
            f"{about['date']}, {about['cores']} cores, {about['gpu'] or 'no GPU'}, {about['machine']}. {packages}. "
            f"{about['rounds']} rounds; medians of {about['fresh']} fresh processes. `import torch` alone takes "
            f"{torch['seconds']:.2f} s and {torch['peak_mb']:.0f} MB."
        )
        if about["scale"] != 1:
            parts.append(f"**A smoke run: {about['scale']:g} of the rows. Nothing here is a measurement.**")
        parts.append(_rows_table(workload) if "cases" in workload else _table(workload, torch["peak_mb"]))
    return "\n\n".join(parts) + "\n"


def _table(workload: dict[str, Any], torch_mb: float) -> str:
    peers = workload["peers"]
    done = {key: peer for key, peer in peers.items() if "missing" not in peer}
    base = {key: median(peer["epochs"]) for key, peer in done.items()}
    busy = {key: median(peer["busy"]) for key, peer in done.items() if peer.get("busy")}
    fresh = {key: median(peer["fresh"]) for key, peer in done.items()}
    best = min((fresh[key] for key in OURS if key in fresh), default=None)
    data_mb = next((peer["data_mb"] for peer in done.values()), 0.0)
    lines = [
        "| | epoch s | min-max | / eager | / fast | / floor | busy s | / quiet | / fast, busy | fresh process s "
        "| / onecycle | accuracy, 1st epoch | last epoch | peak MB | / (data + torch) |",
        "|---|" + "---:|" * 14,
    ]
    for key, peer in sorted(done.items(), key=lambda item: base[item[0]]):
        seconds, peak = base[key], max(peer["peak_mb"])
        cells = [
            f"{seconds:.3f}",
            f"{min(peer['epochs']):.3f}-{max(peer['epochs']):.3f}",
            *(_ratio(seconds, base.get(other)) for other in (*OURS, "floor")),
            f"{busy[key]:.3f}" if key in busy else "-",
            _ratio(busy.get(key), seconds),
            _ratio(busy.get(key), busy.get("onecycle_fast")),
            f"{fresh[key]:.2f}",
            _ratio(fresh[key], best),
            _accuracy(peer["first_accuracy"]),
            _accuracy(peer["accuracy"][-1:]),
            f"{peak:.0f}",
            _ratio(peak, data_mb + torch_mb),
        ]
        lines.append(f"| {peer['name']} | " + " | ".join(cells) + " |")
    lines.append(f"\nSize of the data: {data_mb:.0f} MB.")
    notes = [f"{peer['name']}: {peer['note']}" for peer in done.values() if peer.get("note")]
    missing = [f"{peer['name']}: {peer['missing']}" for peer in peers.values() if "missing" in peer]
    lines += [f"\nDifferences from the others: {'; '.join(notes)}."] if notes else []
    lines += [f"\n**Missing**: {'; '.join(missing)}."] if missing else []
    return "\n".join(lines)


def _rows_table(workload: dict[str, Any]) -> str:
    costs = cost_by_rows(workload)
    lines = ["| rows | engine | µs per row | / cheapest | peak MB | data MB |", "|---:|---|" + "---:|" * 4]
    for case in workload["cases"]:
        if "missing" in case:
            lines.append(f"| {case['rows']:,} | {case['name']} | missing: {case['missing']} | | | |")
            continue
        found = costs[case["name"]]
        cost = found[case["rows"]]
        cells = (f"{cost:.3f}", _ratio(cost, min(found.values())), f"{case['peak_mb']:.0f}", f"{case['data_mb']:.0f}")
        lines.append(f"| {case['rows']:,} | {case['name']} | " + " | ".join(cells) + " |")
    lines.append(
        "\nTraining alone, without validation. Small sizes run for several epochs, to train on a tenth of the largest "
        "size's rows."
    )
    return "\n".join(lines)


def cost_by_rows(workload: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Microseconds a trained row, by engine and rows; rows of a last batch that is dropped do not count."""
    costs: dict[str, dict[int, float]] = {}
    for case in workload["cases"]:
        if "missing" not in case:
            trained = case["rows"] // workload["bs"] * workload["bs"] * case["epochs"]
            costs.setdefault(case["name"], {})[case["rows"]] = median(case["seconds"]) / trained * 1e6
    return costs


def _ratio(value: float | None, base: float | None) -> str:
    return f"{value / base:.2f}" if value is not None and base else "-"


def _accuracy(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):.4f}" if known else "-"


def draw(results: dict[str, Any], file: Path) -> None:
    """Bars for each workload: steady epoch, fresh process, peak memory; a line for the rows."""
    from matplotlib.figure import Figure

    workloads = results["workloads"]
    kinds = (("epochs", "steady epoch, s"), ("fresh", "fresh process to trained epoch, s"), ("peak_mb", "peak, MB"))
    figure = Figure(figsize=(16, 4.2 * len(workloads)), layout="constrained")
    grid = figure.add_gridspec(len(workloads), 3)
    for i, (name, workload) in enumerate(workloads.items()):
        if "cases" in workload:
            _draw_rows(figure.add_subplot(grid[i, :]), name, workload)
            continue
        done = {key: peer for key, peer in workload["peers"].items() if "missing" not in peer}
        for j, (kind, title) in enumerate(kinds):
            axes = figure.add_subplot(grid[i, j])
            found = sorted((median(peer[kind]), key) for key, peer in done.items())[::-1]
            colors = ["tab:orange" if key in OURS else "0.4" if key == "floor" else "tab:blue" for _, key in found]
            bars = axes.barh([done[key]["name"].split(":")[0] for _, key in found], [v for v, _ in found], color=colors)
            axes.bar_label(bars, [f"{value:.3g}" if value < 1000 else f"{value:.0f}" for value, _ in found], padding=3)
            axes.margins(x=0.15)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(f"{name}: {title}")
    figure.savefig(file, dpi=100)


def _draw_rows(axes: Any, name: str, workload: dict[str, Any]) -> None:
    found = cost_by_rows(workload)
    for engine, costs in found.items():
        axes.plot(list(costs), list(costs.values()), marker="o", label=engine)
    axes.set(xscale="log", ylim=(0, None), xlabel="rows", title=f"{name}: cost of a row, µs")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    if found:
        axes.legend()

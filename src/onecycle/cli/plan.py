"""The plan of a training, before it starts: as plain numbers for JSON, and in words."""

from math import ceil, log10
from typing import Any

import torch
from torch import Tensor

from onecycle.cli.setup import Setup
from onecycle.core.models import architecture
from onecycle.data.bunch import DataBunch
from onecycle.errors import pluralize
from onecycle.train.losses import default_loss, loss_name
from onecycle.train.metrics import metric_name

QUANTILES = {"min": 0.0, "5%": 0.05, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "max": 1.0}
_MAX_CLASSES = 6  # in a line
_MAX_DROPPED = 10  # columns that get a line


def plan(setup: Setup) -> dict[str, Any]:
    """Return the plan of a training as plain numbers."""
    data, batches = setup.data, len(setup.data.train_dl)
    sets = {"train": data.train_ds, "valid": data.valid_ds, "test": data.test_ds}
    return {
        "target": target_facts(setup),
        "rows": {name: len(ds) for name, ds in sets.items() if ds is not None},
        "split": setup.split,
        "inputs": _inputs(data),
        "model": model_facts(setup),
        "loss": loss_name(default_loss(data.task)),
        "metrics": [metric_name(metric) for metric in setup.metrics],
        "bs": data.train_dl.batch_size,
        "batches": batches,
        "epochs": setup.epochs,
        "steps": batches * setup.epochs,
    }


def target_facts(setup: Setup) -> dict[str, Any]:
    """Return the names and task of the target, and its classes with their frequencies, or its quantiles."""
    data, target = setup.data, setup.data.target
    targets: list[Tensor] = []
    for name in ("train", "valid", "test"):
        tensors = getattr(getattr(data, f"{name}_ds"), "tensors", None)
        targets += [] if tensors is None else [tensors[-1]]
    facts: dict[str, Any] = {"names": setup.table.targets, "task": data.task}
    if not targets:  # the rows are on disk
        return facts
    y = torch.cat(targets).cpu()
    if data.task == "regression":
        values = (target.inverse_transform(y) if target is not None else y).double().reshape(len(y), -1)
        return {**facts, "quantiles": [_quantiles(column) for column in values.T]}
    names = data.classes or []
    counts = y.sum(0) if data.task == "multilabel" else torch.bincount(y, minlength=len(names))
    key = "labels" if data.task == "multilabel" else "classes"
    rows = [int(count) for count in counts]
    return {
        **facts,
        key: [{"name": name, "rows": n, "share": n / len(y)} for name, n in zip(names, rows, strict=True)],
    }


def plan_lines(setup: Setup) -> list[str]:
    """Return the plan as lines of text."""
    facts, data = plan(setup), setup.data
    lines = [f"read {setup.about}"]
    dropped = [column for column in data.columns if column.kind == "dropped"]
    lines += [f'dropped "{column.name}": {column.why}' for column in dropped[:_MAX_DROPPED]]
    if len(dropped) > _MAX_DROPPED:
        lines.append(f"dropped {len(dropped) - _MAX_DROPPED:,} more columns; `onecycle inspect` says why")
    lines.append(f"target: {target_line(facts['target'])}")
    lines.append(f"split: {split_line(facts['rows'])} ({facts['split']})")
    lines += _missing_classes(data)
    if setup.note:
        lines.append(setup.note)
    lines.append(f"model: {model_line(facts)}")
    lines.append(f"training: {training_line(facts)}")
    return lines


def _missing_classes(data: DataBunch) -> list[str]:
    """Return a line on the classes that no validation row has, if any; the rows must be in memory."""
    tensors = getattr(data.valid_ds, "tensors", None)
    if tensors is None or data.task != "classes":
        return []
    names = data.classes or []
    counts = torch.bincount(tensors[-1].cpu(), minlength=len(names)).tolist()
    missing = [str(name) for name, count in zip(names, counts, strict=True) if not count]
    more = f" and {len(missing) - _MAX_CLASSES:,} more" if len(missing) > _MAX_CLASSES else ""
    return [f"validation has no row of {', '.join(missing[:_MAX_CLASSES])}{more}"] if missing else []


def target_line(facts: dict[str, Any], details: bool = True) -> str:
    """Return the target in a line, with `details` its range or the most frequent classes."""
    names = f"{', '.join(facts['names'])}, " if facts["names"] else ""
    if "quantiles" in facts:
        ranges = [f"{number(q['min'])} to {number(q['max'])}, median {number(q['median'])}" for q in facts["quantiles"]]
        return f"{names}regression: {'; '.join(ranges)}" if details else f"{names}regression"
    key = "labels" if "labels" in facts else "classes"
    if key not in facts:
        return f"{names}{facts['task']}"
    ranked = sorted(facts[key], key=lambda entry: -entry["rows"])
    shown = [f"{entry['name']} {entry['share']:.1%}" for entry in ranked[:_MAX_CLASSES]]
    more = f" and {len(ranked) - _MAX_CLASSES:,} more" if len(ranked) > _MAX_CLASSES else ""
    names = names if key == "classes" or len(facts["names"]) == 1 else ""
    return f"{names}{len(ranked)} {key}" + (f": {', '.join(shown)}{more}" if details else "")


def split_line(rows: dict[str, int]) -> str:
    """Return the sizes of the sets in a line."""
    verbs = {"train": "to train on", "valid": "to validate", "test": "to test"}
    return ", ".join(f"{count:,} rows {verbs[name]}" for name, count in rows.items())


def model_line(facts: dict[str, Any]) -> str:
    """Return the model in a line."""
    model, inputs = facts["model"], facts["inputs"]
    hidden = ", ".join(map(str, model["hidden"])) or "none"
    if "numbers" in inputs:
        inputs_text = f"{number(inputs['numbers'])} numbers"
    else:
        inputs_text = " x ".join(map(str, inputs["shape"]))
    if inputs.get("categories"):
        inputs_text += f" and {inputs['categories']} categories"
    return f"{model['name']} of {inputs_text}; hidden layers {hidden}; {model['parameters']:,} parameters"


def training_line(facts: dict[str, Any]) -> str:
    """Return the length of the training in a line."""
    epochs, batches = pluralize(facts["epochs"], "epoch"), pluralize(facts["batches"], "batch", "es")
    return f"{epochs} of {batches} of {pluralize(facts['bs'], 'row')}, {pluralize(facts['steps'], 'step')}"


def model_facts(setup: Setup) -> dict[str, Any]:
    """Return the model's name, the widths of its hidden layers, and its number of parameters."""
    layers = architecture(setup.model) or {}
    sizes = layers.get("hidden", layers.get("sizes", [0, 0])[1:-1])
    count = sum(parameter.numel() for parameter in setup.model.parameters())
    return {"name": type(setup.model).__name__, "hidden": list(sizes), "parameters": count}


def number(value: float) -> str:
    """Return a number as people write it."""
    if abs(value) < 1e15 and (value == int(value) or abs(value) >= 1e5):
        return f"{value:,.0f}"
    return f"{value:,.6g}"


def _quantiles(column: Tensor) -> dict[str, float]:
    ranked = column.sort().values
    last = len(ranked) - 1  # torch.quantile takes at most 16 million
    quantiles = {name: float(ranked[round(share * last)]) for name, share in QUANTILES.items()}
    highest = max(map(abs, quantiles.values()))
    # they were standardised float32: the digits behind the seventh are noise, which 0 would show
    digits = 6 - ceil(log10(highest)) if highest else 0
    return {name: round(value, digits) + 0.0 for name, value in quantiles.items()}


def _inputs(data: DataBunch) -> dict[str, Any]:
    if data.features is not None:
        return {"numbers": data.features.numbers, "categories": len(data.features.sizes)}
    return {"shape": list(data.inputs.shape[1:]) if data.inputs is not None else []}

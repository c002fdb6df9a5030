"""What a model's numbers mean: how rows become its inputs, and which classes or units its outputs stand for.

Weights mean nothing without it: category codes follow how frequent the values were in the training rows, classes are
the labels that were seen, numbers are standardised by the training rows. It is written beside the weights as JSON, and
compared where weights and data meet.
"""

import json
import math
import reprlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch.utils.data import Subset

from onecycle.core.record import encode_nonfinite
from onecycle.errors import DataError, FileError, ModelError, enumerate_first, warn_user

_ROUNDING = 1e-5  # standard deviations; statistics of the same rows differ by less, however they were added up


def describe_meaning(source: Any) -> dict[str, Any]:
    """Return the meaning of a model's inputs and outputs as JSON values.

    `source`, a DataBunch or the info of a bundle, has `features`, `target`, `classes`, `pixel_scale`, `row_shape` and
    `row_dtype`.
    """
    shape, dtype = source.row_shape, source.row_dtype
    meaning = {
        "features": source.features.to_dict() if source.features is not None else None,
        "target": source.target.to_dict() if source.target is not None else None,
        "classes": encode_nonfinite(source.classes),
        "pixel_scale": source.pixel_scale,
        "input_shape": list(shape) if shape is not None else None,
        "input_dtype": str(dtype).removeprefix("torch.") if dtype is not None else None,
    }
    return json.loads(json.dumps(meaning, default=lambda value: getattr(value, "tolist", value.__repr__)()))


def check_meaning(saved: Any, own: dict[str, Any], source: Path) -> None:
    """Raise ModelError if weights from `source` mean something else than a learner's data; the message says what.

    Args:
        saved: What `describe_meaning` returned when they were saved; None for a save of an earlier version.
        own: The same of the learner's data.
        source: Where the weights are.

    What cannot be compared is warned about. Raises FileError if `saved` is not a description.
    """
    names = _class_names(own)
    if saved is None:
        if own["features"] is not None or own["target"] is not None or names is not None:
            warn_user(
                f"{source}: written by an earlier version, without what columns, codes and classes mean; it cannot be "
                "checked that they mean the same in this data: if they do, save it again",
            )
        return
    try:
        differences, unknown = list(_differences(saved, own)), list(_unknown(saved, own))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise FileError(f"{source}: info is not a description of data that onecycle wrote ({error})") from error
    if differences:
        fix = "the same, in the same order"
        if saved["features"] is not None or saved["target"] is not None:
            fix = (
                "data prepared as theirs: from the same rows with the same seed and split, or any rows with "
                f"DataBunch.from_table(..., preprocessing={str(source)!r})"
            )
        raise ModelError(
            f"{source}: its weights mean something else than this data: {enumerate_first(differences)}; expected {fix}"
        )
    for text in unknown:
        warn_user(f"{source}: {text}; it cannot be checked that they mean the same")


def meaning_digests(meaning: dict[str, Any] | None) -> dict[str, str]:
    """Return a digest of each column, and of each other part of a meaning: enough to say what differs."""
    parts = dict(meaning or {})
    features = parts.pop("features", None)
    parts |= {f'column "{column["name"]}"': column for column in features["columns"]} if features else {}
    return {name: sha256(json.dumps(part).encode()).hexdigest()[:16] for name, part in parts.items()}


def check_rows(loader: Any, source: Any, name: str) -> None:
    """Raise DataError if a loader's rows were prepared, or its classes numbered, otherwise than those of `source`.

    A loader of a table has the features and the target that its rows were prepared with as `prepared`, a data set may
    name its `classes`; nothing is known of other rows.
    """
    prepared, dataset = getattr(loader, "prepared", None), getattr(loader, "dataset", None)
    if difference := preparation_difference(prepared, source, dataset):
        raise DataError(
            f"{name}: its rows do not mean what those trained on do: {difference}; expected a loader of the same data, "
            "or raw rows (for example a path, or a table), which are prepared as in training"
        )


def preparation_difference(prepared: Any, source: Any, dataset: Any = None) -> str | None:
    """Return how rows differ from those of `source`, or None.

    `prepared` is the features and the target that they were prepared with, or None; `dataset` may name the classes.
    """
    features, target = prepared or (source.features, source.target)
    classes = named_classes(dataset) if target is None else target.classes
    if features is source.features and target is source.target and classes is None:
        return None
    shape = {"pixel_scale": None, "row_shape": None, "row_dtype": None}
    theirs, ours = (
        describe_meaning(SimpleNamespace(features=features, target=target, classes=classes, **shape))
        for features, target, classes in (
            (source.features, source.target, source.classes),
            (features, target, None if classes is None else [*classes]),
        )
    )
    return enumerate_first([*_differences(theirs, ours)]) or None


def named_classes(dataset: Any) -> Any:
    """Return the `classes` of a data set, or of the one that it is a Subset of; None if it names none."""
    classes = getattr(dataset, "classes", None)
    return named_classes(dataset.dataset) if classes is None and isinstance(dataset, Subset) else classes


def _differences(saved: dict[str, Any], own: dict[str, Any]) -> Iterator[str]:
    """Yield a text for each difference."""
    yield from _column_differences(saved["features"], own["features"])
    if saved["target"] is not None and own["target"] is not None:
        yield from _target_differences(saved["target"], own["target"])
    else:
        for target, where in ((saved["target"], "in training"), (own["target"], "here")):
            if target is not None and target["task"] == "regression":
                yield f'target "{target["names"][0]}": standardised {where} only'
    theirs, ours = _class_names(saved), _class_names(own)
    if theirs is not None and ours is not None:
        yield from _list_differences("class", theirs, ours)
    if _is_byte(saved) and _is_byte(own) and saved["pixel_scale"] != own["pixel_scale"]:
        yield f"pixels: divided by {saved['pixel_scale']}, here by {own['pixel_scale']}"
    shape, own_shape = _sides(saved), _sides(own)
    if shape != own_shape and math.prod(shape) == math.prod(own_shape) and min(len(shape), len(own_shape)) > 1:
        yield f"a row: of shape {tuple(saved['input_shape'])}, here {tuple(own['input_shape'])}"


def _unknown(saved: dict[str, Any], own: dict[str, Any]) -> Iterator[str]:
    """Yield a text for each thing that only one of the two says."""
    theirs, ours = _class_names(saved), _class_names(own)
    if (theirs is None) != (ours is None):
        named, where = (theirs, "in training") if ours is None else (ours, "here")
        yield f"the classes are called {reprlib.repr(named)} {where} only"
    if saved["input_dtype"] and own["input_dtype"] and _is_byte(saved) != _is_byte(own):
        yield (
            f"inputs: {saved['input_dtype']} divided by {saved['pixel_scale'] or 1:g}, here {own['input_dtype']} "
            f"divided by {own['pixel_scale'] or 1:g}"
        )
    shape, own_shape = _sides(saved), _sides(own)
    if shape and own_shape and math.prod(shape) != math.prod(own_shape):
        yield f"a row: of shape {tuple(saved['input_shape'])}, here {tuple(own['input_shape'])}"


def _class_names(meaning: dict[str, Any]) -> list[Any] | None:
    """Return the names of the classes; None if they are numbered from 0, or not known."""
    classes = meaning["classes"]
    return None if classes is None or classes == [*range(len(classes))] else classes


def _is_byte(meaning: dict[str, Any]) -> bool:
    return meaning["input_dtype"] in ("uint8", "bool")


def _sides(meaning: dict[str, Any]) -> list[int]:
    """Return the shape of a row without dimensions of one."""
    return [side for side in meaning["input_shape"] or () if side != 1]


def _column_differences(saved: dict[str, Any] | None, own: dict[str, Any] | None) -> Iterator[str]:
    if saved is None or own is None:
        if saved is not own:
            where, other = ("in training", "here") if own is None else ("here", "in training")
            yield f"rows: prepared from the columns of a table {where}, used as they are {other}"
        return
    theirs, ours = ({column["name"]: column for column in side["columns"]} for side in (saved, own))
    for name in theirs:
        if name not in ours:
            yield f'column "{name}": not among the features here'
    for name in ours:
        if name not in theirs:
            yield f'column "{name}": not among the features in training'
    if theirs.keys() == ours.keys() and [*theirs] != [*ours]:
        yield f"columns: in the order {', '.join(theirs)}, here {', '.join(ours)}"
    for name, column in theirs.items():
        if name in ours:
            yield from (f'column "{name}": {text}' for text in _settings_differences(column, ours[name]))


def _settings_differences(saved: dict[str, Any], own: dict[str, Any]) -> Iterator[str]:
    """Yield how two columns differ: by kind, else by what both say."""
    if saved["kind"] != own["kind"]:
        yield f"{saved['kind']}, here {own['kind']}"
        return
    scale = own.get("std", 1.0)
    for key in [key for key in saved if key in own]:
        value, other = saved[key], own[key]
        if key == "values":
            yield from _list_differences("code", value, other, first=1)
        elif key == "parts":
            yield from (f"{part}: in one of the two only" for part in value.keys() ^ other.keys())
            for part in [part for part in value if part in other]:
                yield from _moment_differences(value[part], other[part], f" of {part}")
        elif isinstance(value, float) and isinstance(other, float):
            if not _is_close(value, other, scale):
                yield f"{key} {value:.6g}, here {other:.6g}"
                return  # the others follow from the same rows
        elif value != other:
            yield f"{key} {value}, here {other}"


def _target_differences(saved: dict[str, Any], own: dict[str, Any]) -> Iterator[str]:
    """Yield how two targets differ, besides their classes."""
    name = ", ".join(saved["names"])
    for key in ("names", "task", "lists"):
        if saved[key] != own[key]:
            yield f'target "{name}": {key} {saved[key]}, here {own[key]}'
            return
    for column, *moments in zip(saved["names"], saved["mean"], saved["std"], own["mean"], own["std"], strict=False):
        yield from (f'target "{column}": {text}' for text in _moment_differences(moments[:2], moments[2:]))


def _moment_differences(saved: list[float], own: list[float], of: str = "") -> Iterator[str]:
    for key, value, other in zip(("mean", "std"), saved, own, strict=True):
        if not _is_close(value, other, own[1]):
            yield f"{key}{of} {value:.6g}, here {other:.6g}"
            return


def _is_close(a: float, b: float, scale: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-13, abs_tol=_ROUNDING * scale)


def _list_differences(noun: str, saved: list[Any], own: list[Any], first: int = 0) -> Iterator[str]:
    """Yield the first place at which two lists differ."""
    for i in range(max(len(saved), len(own))):
        if saved[i : i + 1] != own[i : i + 1]:
            a, b = (repr(values[i]) if i < len(values) else "none" for values in (saved, own))
            yield f"{noun} {first + i} is {a}, here {b}"
            return

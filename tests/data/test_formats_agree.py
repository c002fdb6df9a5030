"""The same table trains the same model and is predicted alike, whatever format it comes in."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onecycle import DataBunch, Learner, load_predictor
from onecycle.data.from_table import prepare_table
from onecycle.data.sources import open_source, table_of_rows
from onecycle.errors import OneCycleError
from onecycle.tables.spec import TableSpec
from onecycle.tables.values import CSV_MISSING_MARKERS
from table_files import write_table

SUFFIXES = (".csv", ".tsv", ".csv.gz", ".parquet", ".arrow")
ROWS = 24
MARKERS = [*CSV_MISSING_MARKERS, " NA", "None ", " "]
WORDS = ["Rome", "Rome ", "ROME", "none", "unknown", "na", "--", "007", "1", "1.0", "-1.5", "true", "yes", "2020-01-31"]
CELLS = st.sampled_from([*MARKERS, *WORDS, None]) | st.text("aB 1,;\t\"'\n-éß", max_size=4)
BOOLEANS = st.sampled_from(["true", "True", "TRUE", "false", "False", "FALSE", "NA", "", None])
NUMBERS = st.none() | st.floats(-1e6, 1e6) | st.integers(-99, 99).map(float)


def in_memory(table: pa.Table) -> dict[str, Any]:
    """The table in all of the ways in which Python has tables."""
    columns = table.to_pydict()
    return {
        "arrow": table,
        "pandas": table.to_pandas(),
        "pandas of objects": pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in columns.items()}),
        "polars": pl.DataFrame(columns, strict=False),
        "dict": columns,
        "rows": table.to_pylist(),
        "dictionary": table.set_column(0, "word", table["word"].dictionary_encode()),
    }


def in_files(table: pa.Table, folder: Path) -> dict[str, Any]:
    for suffix in SUFFIXES:
        write_table(table, folder / f"rows{suffix}")
    return {suffix: folder / f"rows{suffix}" for suffix in SUFFIXES}


def trained_on(source: Any, **options: Any) -> Any:
    """What training takes from a table: preprocessing, target, inputs, targets; or the kind of error."""
    spec = TableSpec("y", split="random", valid=0.25, **options)
    try:
        prepared = prepare_table(open_source(source, text_columns=spec.text_columns), spec)
    except OneCycleError as error:
        return type(error).__name__
    assert prepared.features is not None
    sets = [part.tolist() for data in prepared.sets for part in data.tensors]
    return prepared.features.to_dict(), prepared.target.to_dict(), sets


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), as_category=st.booleans())
def test_formats_train_the_same_model(data: Any, as_category: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    words = ["word", "word", "another", "a third"]  # so that a column is text in every format
    table = pa.table(
        {
            "word": pa.array(words + data.draw(st.lists(CELLS, min_size=ROWS, max_size=ROWS)), pa.string()),
            "flag": pa.array(
                ["true", "false", "true", "true", *data.draw(st.lists(BOOLEANS, min_size=ROWS, max_size=ROWS))]
            ),
            "x": pa.array(
                [0.5, 1.5, None, 2.0, *data.draw(st.lists(NUMBERS, min_size=ROWS, max_size=ROWS))], pa.float64()
            ),
            "y": np.arange(ROWS + 4) / 8,
        }
    )
    options = {"kinds": {"word": "category"}} if as_category else {}
    want = trained_on(table, **options)
    sources = in_files(table, tmp_path_factory.mktemp("files")) | in_memory(table)
    assert {name: trained_on(source, **options) for name, source in sources.items()} == dict.fromkeys(sources, want)


@pytest.fixture
def city_model(here: Path) -> Path:
    """A model whose column has missing values in the shape of "NA", trained on Parquet."""
    random = np.random.default_rng(0)
    city, x = random.choice(["Rome", "Oslo", "Lima", "NA"], 200), random.normal(size=200)
    table = pa.table(
        {"city": city, "member": random.random(200) < 0.5, "x": x, "y": 3.0 * (city == "Rome") + (city == "NA") + x}
    )
    write_table(table, here / "train.parquet")
    learn = Learner(DataBunch.from_table(here / "train.parquet", "y", seed=1, device="cpu"))
    with torch.no_grad():  # not trained: that is for what rows mean
        for weights in learn.model.parameters():
            weights.add_(torch.randn(weights.shape, generator=torch.Generator().manual_seed(0)))
    learn.export(here / "city.onecycle")
    return here / "city.onecycle"


def test_formats_are_predicted_alike(city_model: Path, tmp_path: Path) -> None:
    cells = ["Rome", " Rome", "NA", "None", "-", "", None, "Oslo", "Lima ", "NULL"]
    table = pa.table({"word": cells, "city": cells, "member": [True] * 10, "x": [0.0] * 10})
    predictor = load_predictor(city_model, device="cpu")
    sources = in_files(table, tmp_path) | in_memory(table)
    predictions = {name: predictor.get_preds(source)[0].tolist() for name, source in sources.items()}
    want = predictions["dict"]
    for name, found in predictions.items():
        assert np.allclose(found, want, rtol=1e-6), name
    np.testing.assert_allclose(want[1], want[0], rtol=1e-5)  # blanks around do not count
    np.testing.assert_allclose([*want[2:7], want[9]], want[2], rtol=1e-5)  # missing is missing
    assert abs(want[0] - want[2]) > 1e-3 * abs(want[2])
    for row, value in zip(table.to_pylist(), want, strict=True):
        assert predictor.predict(row)[0] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("suffix", ["memory", ".csv", ".parquet"])
def test_what_the_model_does_not_know_is_counted_and_said(city_model: Path, tmp_path: Path, suffix: str) -> None:
    cells = {"city": ["Rome", "ROME", "ROME", "Paris", None], "member": ["yes", "no", "yes", "yes", "true"]}
    table = pa.table(cells | {"x": [0.0] * 5})
    source: Any = cells | {"x": [0.0] * 5}
    if suffix != "memory":
        source = tmp_path / f"rows{suffix}"
        write_table(table, source)
    predictor = load_predictor(city_model, device="cpu")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predictor.predict_rows(source)
    assert [(str(warning.message), warning.filename) for warning in caught] == [
        (
            "column \"city\": 3 of 5 cells hold what the model does not know from training, most often 'ROME' (2); "
            'did you mean "Rome"?',
            __file__,
        ),
        (
            "column \"member\": 4 of 5 cells hold what the model does not know from training, most often 'yes' (3); "
            "it knows 'false', 'true'",
            __file__,
        ),
    ]


def test_codes_mean_the_same_as_numbers_text_and_booleans(here: Path) -> None:
    codes, x = np.arange(60) % 3, np.linspace(0, 1, 60)
    table = {"code": codes, "x": x, "y": x + codes}
    data = DataBunch.from_table(table, "y", kinds={"code": "category"}, seed=1, device="cpu")
    assert data.features is not None
    want = data.features.transform(table_of_rows({"code": [0, 1, 2], "x": [0.0] * 3}, ["code", "x"]))
    for cells in (["0", "1", "2"], ["0.0", "1.0", "2.0"], ["00", "01", "02"], [0.0, 1.0, 2.0], [" 0", "1 ", "2"]):
        found = data.features.transform(table_of_rows({"code": cells, "x": [0.0] * 3}, ["code", "x"]))
        assert found.tolist() == want.tolist(), cells


@pytest.mark.parametrize("source", ["csv", "pandas"])
def test_a_class_called_none_can_be_said_to_be_one(here: Path, source: str) -> None:
    frame = pd.DataFrame({"x": np.arange(60) / 60, "y": ["None", "NA", "Apnea"] * 20})
    frame.to_csv("t.csv", index=False)
    table = "t.csv" if source == "csv" else frame
    with pytest.raises(OneCycleError, match=r"missing in 40 of 60 rows.*if it is a class, say so: --kind y=category"):
        DataBunch.from_table(table, "y", seed=1)
    data = DataBunch.from_table(table, "y", kinds={"y": "category"}, seed=1, device="cpu")
    assert data.classes == ["Apnea", "NA", "None"]
    learn = Learner(data)
    stream = io.BytesIO()
    learn.export(stream)
    stream.seek(0)
    assert load_predictor(stream).target.to_dict() == data.target.to_dict()
    with pytest.raises(OneCycleError, match='expected "category", of a lone target of classes'):
        DataBunch.from_table(table, "y", kinds={"y": "number"})

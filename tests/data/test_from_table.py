"""From a table to a trained model and back to raw rows."""

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
import torch
from torch import nn

from onecycle import DataBunch, Learner, accuracy, load_learner, mae, r2_score, rmse, root_mean_squared_error
from onecycle.errors import DataError, FileError, SettingError


def table(rows: int = 400, seed: int = 0) -> pa.Table:
    """Numbers with holes, a category, a truth value, a date, an identifier, a constant; targets of three tasks."""
    random = np.random.default_rng(seed)
    size, city = random.normal(50, 20, rows), random.choice(["Rome", "Oslo", "Lima"], rows)
    new = random.random(rows) < 0.5
    day = [datetime.date(2020, 1, 1) + datetime.timedelta(days=int(i)) for i in random.integers(0, 900, rows)]
    price = 1000 + 20 * size + 500 * (city == "Rome") + 100 * new
    holes = random.random(rows) < 0.1
    return pa.table(
        {
            "id": [f"row-{i}" for i in range(rows)],
            "size": pa.array(size, mask=holes),
            "city": city,
            "new": new,
            "day": day,
            "unit": ["m2"] * rows,
            "price": price,
            "dear": np.where(price > 2200, "yes", "no"),
            "big": (size > 50).astype(int),
            "southern": (city != "Oslo").astype(int),
        }
    )


def test_a_regression_is_in_the_targets_units():
    data = DataBunch.from_table(table(), "price", drop=["dear", "big", "southern"], seed=0)
    assert data.task == "regression"
    assert data.c == 1
    assert data.targets is not None
    assert abs(data.targets.mean()) < 1e-5
    assert [column.name for column in data.columns if column.kind == "dropped"] == ["id", "unit"]
    learn = Learner(data, metrics=[mae, rmse], silent=True)
    learn.fit_one_cycle(20, 1e-2)
    preds, targets = learn.get_preds()
    assert targets is not None
    assert preds.shape == targets.shape == (80,)
    assert targets.mean() == pytest.approx(2280, abs=100)
    assert learn.recorder.metrics[-1][0] == pytest.approx((preds - targets).abs().mean().item(), rel=1e-4)
    assert learn.recorder.metrics[-1][1] == pytest.approx((preds - targets).square().mean().sqrt().item(), rel=1e-4)
    assert learn.recorder.metrics[-1][1] < 200
    assert learn.validate()[1] == pytest.approx(learn.recorder.metrics[-1][0])


def test_classes_are_named_and_split_by_their_share():
    data = DataBunch.from_table(table(), "dear", drop=["price"], seed=0)
    assert data.classes == ["no", "yes"]
    assert isinstance(Learner(data).loss_func, nn.CrossEntropyLoss)
    assert data.valid_ds is not None
    shares = [float((ds.tensors[1] == 1).float().mean()) for ds in (data.train_ds, data.valid_ds)]
    assert shares[0] == pytest.approx(shares[1], abs=0.01)
    learn = Learner(data, metrics=accuracy, silent=True)
    learn.fit_one_cycle(20, 1e-2)
    assert (learn.recorder.metrics[-1][0] or 0) > 0.85
    name, number, probabilities = learn.predict(
        {"size": 5.0, "city": "Oslo", "new": False, "day": None, "big": 0, "southern": 0}
    )
    assert (name, int(number)) == ("no", 0)
    assert probabilities.sum() == pytest.approx(1)


def test_several_labels():
    data = DataBunch.from_table(table(), ["big", "southern"], drop=["price", "dear"], seed=0)
    assert data.task == "multilabel"
    assert isinstance(Learner(data).loss_func, nn.BCEWithLogitsLoss)
    learn = Learner(data, silent=True)
    learn.fit_one_cycle(10, 1e-2)
    labels, mask, probabilities = learn.predict({"size": 95.0, "city": "Rome", "new": True, "day": None})
    assert labels == ["big", "southern"]
    assert mask.tolist() == [True, True]
    assert bool(((probabilities >= 0) & (probabilities <= 1)).all())


def test_statistics_are_those_of_the_training_rows():
    rows = table()
    data = DataBunch.from_table(rows, "price", split=np.arange(300, 400), seed=0)
    size = rows["size"].combine_chunks().to_numpy(zero_copy_only=False)[:300]
    assert data.features is not None
    assert data.inputs is not None
    place = data.features.names.index("size")
    expected = (np.where(np.isnan(size), np.nanmedian(size), size) - np.nanmean(size)) / np.nanstd(size)
    assert np.corrcoef(data.inputs[:, place].numpy(), expected)[0, 1] > 0.9999


def test_the_bundle_takes_raw_rows_in_any_order(tmp_path: Path):
    rows = table()
    data = DataBunch.from_table(rows, "price", drop=["dear", "big", "southern"], seed=0)
    learn = Learner(data, path=tmp_path, silent=True)
    learn.fit_one_cycle(2, 1e-2)
    loaded = load_learner(learn.export())
    expected = learn.get_preds(rows)[0]
    assert torch.equal(loaded.get_preds(rows)[0], expected)
    shuffled = rows.select(["unit", "day", "new", "city", "size", "dear"]).append_column("more", pa.array(range(400)))
    assert torch.equal(loaded.get_preds(shuffled)[0], expected)
    pa_csv.write_csv(rows, tmp_path / "rows.csv")
    assert torch.allclose(loaded.get_preds(tmp_path / "rows.csv")[0], expected, rtol=1e-4)
    unseen = shuffled.set_column(3, "city", pa.array(["Atlantis"] * 400))
    with pytest.warns(UserWarning, match="400 of 400 cells hold what the model does not know .* 'Atlantis'"):
        assert bool(loaded.get_preds(unseen)[0].isfinite().all())
    with pytest.raises(
        DataError, match='the table has no column "city", which the model was trained with; did you mean "City"?'
    ):
        loaded.get_preds(rows.rename_columns([name if name != "city" else "City" for name in rows.schema.names]))


def test_codes_that_look_like_numbers_stay_text_where_they_are_categories(tmp_path: Path):
    random = np.random.default_rng(0)
    zips = random.choice(["01234", "1234", "00099"], 200)
    lines = [f"{zip},{int(zip == '01234')}" for zip in zips]
    (tmp_path / "a.csv").write_text("zip,y\n" + "\n".join(lines) + "\n")
    data = DataBunch.from_table(tmp_path / "a.csv", "y", kinds={"zip": "category"}, seed=0)
    learn = Learner(data, path=tmp_path, metrics=accuracy, silent=True)
    learn.fit_one_cycle(20, 1e-1)
    assert learn.recorder.metrics[-1][0] == 1.0
    preds = load_learner(learn.export()).get_preds(tmp_path / "a.csv")[0]
    assert bool((preds.argmax(1) == torch.tensor(zips == "01234")).all())


def test_same_seed_same_data():
    for split in ("random", "auto", "group:day"):
        a, b, c = (DataBunch.from_table(table(), "dear", split=split, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(a.inputs, b.inputs)
        assert a.inputs.shape != c.inputs.shape or not torch.equal(a.inputs, c.inputs)


def test_arrays_and_images_use_the_same_verb():
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 5))
    data = DataBunch.from_table((x, (x[:, 0] > 0).astype(int)), seed=0)
    learn = Learner(data, metrics=accuracy, silent=True)
    learn.fit_one_cycle(10, 1e-2)
    assert (learn.recorder.metrics[-1][0] or 0) > 0.9
    assert learn.get_preds(x[:7])[0].shape == (7, 2)
    pixels = random.integers(0, 255, (100, 8, 8), dtype=np.uint8)
    images = DataBunch.from_table((pixels, np.arange(100) % 3), seed=0)
    assert images.inputs is not None
    assert images.inputs.dtype is torch.uint8
    assert images.one_batch()[0].max() <= 1
    assert images.classes == [0, 1, 2]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"target": "prise"}, SettingError, 'there is no column "prise".*did you mean "price"'),
        (
            {"target": "price", "drop": ["citty"]},
            SettingError,
            'drop names "citty", but there is no such column; did you mean "city"',
        ),
        ({"target": "price", "kinds": {"size": "numbr"}}, SettingError, 'did you mean "number"'),
        ({"target": "price", "split": "time:dayy"}, (SettingError, DataError), 'did you mean "day"'),
        ({"target": "price", "bs": 0}, SettingError, "bs is 0; expected"),
        ({"target": "city", "split": np.arange(40), "task": "regression"}, (SettingError, DataError), "city"),
    ],
)
def test_settings_that_cannot_be_used(options: dict[str, Any], error: Any, message: str):
    with pytest.raises(error, match=message):
        DataBunch.from_table(table(40), seed=0, **options)


def test_a_label_that_only_validation_has_is_named():
    rows = pa.table({"a": [1.0, 2.0, 3.0, 4.0], "y": ["u", "v", "u", "w"]})
    with pytest.raises(DataError, match="w"):
        DataBunch.from_table(rows, "y", split=[3], seed=0)


def test_a_missing_target_is_named_with_its_line(tmp_path: Path):
    (tmp_path / "t.csv").write_text("x,y\n" + "1.5,2.5\n2,3.5\n" * 10 + "3,\n")
    with pytest.raises(DataError) as caught:
        DataBunch.from_table(tmp_path / "t.csv", target="y")
    assert f"missing in 1 of 21 rows, first in {tmp_path / 't.csv'}:22; expected a value" in str(caught.value)


def test_without_a_target_it_says_so():
    with pytest.raises(SettingError, match='no column "y", which is predicted if target= is left out; there are a, b'):
        DataBunch.from_table({"a": [1, 2], "b": [3, 4]})


@pytest.mark.parametrize("scale", [1e-50, 1e60])
def test_arrays_of_float64_are_prepared_as_float64(scale: float):
    x = np.random.default_rng(0).normal(size=(80, 2))
    data, expected = (
        DataBunch.from_table((x * factor, x[:, 0] * factor), bs=16, seed=1, device="cpu") for factor in (scale, 1.0)
    )
    for tensor, other in zip(data.train_ds.tensors, expected.train_ds.tensors, strict=True):
        assert torch.allclose(tensor, other, atol=1e-5)
    learn = Learner(data, metrics=[r2_score, root_mean_squared_error], silent=True)
    learn.fit(1, 1e-3)
    preds, targets = learn.get_preds("valid")
    assert preds.dtype is torch.float64
    assert 0.1 < preds.std() / scale < 10
    assert np.allclose(sorted(targets / scale), sorted(expected.target.inverse_transform(expected.valid_ds.tensors[1])))
    _, r2, root = learn.validate()
    assert r2 < 1
    assert root == pytest.approx(scale, rel=1)


def test_targets_of_images_stay_float64():
    x, y = np.random.default_rng(0).random((40, 3, 3)), np.random.default_rng(1).normal(size=40)
    data = DataBunch.from_table((x, y * 1e-50), bs=8, seed=1, device="cpu")
    assert data.target is not None
    assert data.target.std[0] == pytest.approx(1e-50, rel=0.5)


def test_rows_are_prepared_as_an_earlier_model_was(here: Path):
    earlier = DataBunch.from_table(table(), "dear", drop=["price", "big", "southern"], seed=1, device="cpu")
    learn = Learner(earlier, silent=True)
    learn.save("m")
    pa_csv.write_csv(table(300, seed=7), "new.csv")
    for source in ("models/m", Path("models/m"), learn.export("b"), learn.export("b.zip"), learn, earlier):
        data = DataBunch.from_table(table(300, seed=7), preprocessing=source, seed=2, device="cpu")
        assert data.features is not None
        assert data.features.to_dict() == earlier.features.to_dict()
        assert data.target.to_dict() == earlier.target.to_dict()
        assert len(data.train_ds) == 240
    from_file = DataBunch.from_table("new.csv", preprocessing=learn, seed=2, device="cpu")
    assert torch.equal(from_file.train_ds.tensors[1], data.train_ds.tensors[1])
    x, expected = (bunch.train_ds.tensors[0] for bunch in (from_file, data))
    assert torch.allclose(x, expected, atol=1e-5)
    settings = {"split": "random", "seed": 2, "device": "cpu"}
    streamed = DataBunch.from_table("new.csv", preprocessing=learn, memory_limit=1_000, **settings)
    assert streamed.features.to_dict() == earlier.features.to_dict()
    assert Learner(streamed, silent=True).load("m").validate()


def test_preprocessing_leaves_no_choice_of_columns(here: Path):
    earlier = DataBunch.from_table(table(), "dear", drop=["price", "big", "southern"], seed=1, device="cpu")
    for settings in ({"kinds": {"size": "category"}}, {"drop": ["size"]}, {"task": "regression"}, {"target": "price"}):
        with pytest.raises(SettingError, match="DataBunch says what the columns are and predicts dear"):
            DataBunch.from_table(table(), preprocessing=earlier, **settings)
    with pytest.raises(DataError, match="""target "dear" is 'maybe', which the table has and training lacks"""):
        DataBunch.from_table(
            table().set_column(7, "dear", pa.array(["maybe", "no"] * 200)), preprocessing=earlier, split="stratified"
        )
    with pytest.raises(DataError, match='the table has no column "size", which the model was trained with'):
        DataBunch.from_table(table().drop_columns(["size"]), preprocessing=earlier)
    images = torch.zeros(8, 3, 3, dtype=torch.uint8), torch.arange(8) % 2
    with pytest.raises(DataError, match="these are images or arrays, and preprocessing is that of the columns"):
        DataBunch.from_table(images, preprocessing=earlier)
    of_images = DataBunch.from_table(images, bs=2, device="cpu")
    with pytest.raises(DataError, match="a table has columns, and preprocessing is that of images or arrays"):
        DataBunch.from_table({"x": np.arange(8), "y": np.arange(8) % 2}, preprocessing=of_images)
    few = images[0], torch.tensor([1, 1, 1, 1, 1, 1, 1, 0])
    assert DataBunch.from_table(few, preprocessing=of_images, bs=2, device="cpu").classes == [0, 1]
    with pytest.raises(SettingError, match="preprocessing: int has none; expected a bundle or a save of a model"):
        DataBunch.from_table(table(), preprocessing=3)
    with pytest.raises(FileError, match="nothing: no such folder; expected a bundle that onecycle wrote"):
        DataBunch.from_table(table(), preprocessing="nothing")

"""What a model means travels with its weights: other columns, codes, classes, scales and units are refused by name."""

import io
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from onecycle import (
    EMA,
    MLP,
    DataBunch,
    DataError,
    FileError,
    Learner,
    ModelError,
    SaveBest,
    SettingError,
    accuracy,
    load_learner,
    load_predictor,
)
from onecycle.core.meaning import check_meaning, describe_meaning

Table = dict[str, Any]
CODE = r'column "shop": code \d is '


def shops(n: int = 400) -> Table:
    random = np.random.default_rng(0)
    shop = random.integers(0, 8, n)
    good = np.array([1, 0, 0, 1, 0, 1, 1, 0], bool)[shop]
    names = np.array([f"shop {i}" for i in range(8)])
    return {"shop": names[shop], "size": random.normal(size=n), "y": np.where(good, "yes", "no")}


def bunch(table: Table, target: str = "y", seed: int = 1, **settings: Any) -> DataBunch:
    return DataBunch.from_table(table, target, bs=32, seed=seed, device="cpu", **settings)


def learner(data: DataBunch, **settings: Any) -> Learner:
    return Learner(data, metrics=accuracy, silent=True, **settings)


def trained(data: DataBunch) -> Learner:
    learn = learner(data)
    learn.fit_one_cycle(3, 2e-2)
    assert learn.validate()[1] == 1
    return learn


def test_the_same_rows_and_seed_are_the_same(here: Path):
    learn = trained(bunch(shops()))
    learn.save("m")
    again = learner(bunch(shops())).load("m")
    assert again.validate() == learn.validate()
    assert load_learner(learn.export("b"), data=bunch(shops())).validate() == learn.validate()


def test_another_split_is_refused_and_the_preprocessing_of_the_weights_is_right(here: Path):
    learn = trained(bunch(shops()))
    learn.save("m")
    learn.export("b")
    other = bunch(shops(), seed=2)
    fix = r"from the same rows with the same seed and split, or any rows with DataBunch.from_table\(..., preprocessing="
    into = learner(other)
    before = {name: tensor.clone() for name, tensor in into.model.state_dict().items()}
    with pytest.raises(
        ModelError, match=rf"m: its weights mean something else than this data: {CODE}.*{fix}'models/m'"
    ):
        into.load("m")
    assert all(torch.equal(before[name], tensor) for name, tensor in into.model.state_dict().items())
    with pytest.raises(ModelError, match=rf"^b: .*{CODE}.*{fix}'b'\)"):
        load_learner("b", data=other)
    assert learner(bunch(shops(), seed=2, preprocessing="models/m")).load("m").validate()[1] == 1
    assert load_learner("b", data=bunch(shops(), seed=2, preprocessing="b")).validate()[1] == 1
    assert load_learner("b", data=shops()).validate()[1] == 1  # prepared as the bundle says
    content = io.BytesIO()
    learn.save(content)
    content.seek(0)
    with pytest.raises(ModelError, match=rf"<BytesIO>: .*{CODE}"):
        into.load(content)


def changed(**columns: Any) -> Table:
    return shops() | columns


DIFFERENT: dict[str, tuple[Table, str]] = {
    "a class renamed": (changed(y=np.where(shops()["y"] == "yes", "ja", "no")), "class 0 is 'no', here 'ja'"),
    "classes swapped": (changed(y=np.where(shops()["y"] == "yes", "a no", "yes")), "class 0 is 'no', here 'a no'"),
    "codes swapped": (
        changed(shop=np.array([f"shop {(int(name[-1]) + 1) % 8}" for name in shops()["shop"]])),
        'column "shop": code 1 is ',
    ),
    "a column renamed": (
        {"shop": shops()["shop"], "mass": shops()["size"], "y": shops()["y"]},
        'column "size": not among the features here; column "mass": not among the features in training',
    ),
    "columns reordered": (
        {name: shops()[name] for name in ("y", "size", "shop")},
        "columns: in the order shop, size, here size, shop",
    ),
    "a column scaled": (changed(size=shops()["size"] * 1.001), 'column "size": mean'),
    "a category of numbers": (changed(shop=np.array([float(name[-1]) for name in shops()["shop"]])), "number"),
    "missing values": (
        changed(size=np.where(np.arange(400) == np.flatnonzero(np.arange(400) % 7)[3], np.nan, shops()["size"])),
        'column "size": ',
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_named(here: Path, name: str):
    learner(bunch(shops())).save("m")
    table, message = DIFFERENT[name]
    with pytest.raises(ModelError) as error:
        learner(bunch(table)).load("m")
    assert message in str(error.value)


def test_a_column_left_out_is_named(here: Path):
    learner(bunch(shops())).save("m")
    with pytest.raises(ModelError, match='column "size": not among the features here'):
        learner(bunch(shops(), drop=["size"])).load("m")


def test_the_target_and_its_scale(here: Path):
    x = np.random.default_rng(0).normal(size=(200, 2))
    table = {"a": x[:, 0], "y": x[:, 1]}
    learner(bunch(table)).save("m")
    learner(bunch(table)).load("m")
    with pytest.raises(ModelError, match='target "y": mean'):
        learner(bunch(table | {"y": x[:, 1] * 10})).load("m")
    with pytest.raises(ModelError, match=r"""target "y": names \['y'\], here \['z'\]"""):
        learner(bunch({"a": x[:, 0], "z": x[:, 1]}, "z")).load("m")
    arrays = DataBunch.create((x[:, :1], x[:, 1:]), bs=32, device="cpu")
    with pytest.raises(ModelError, match="rows: prepared from the columns of a table in training, used as they are"):
        Learner(arrays, learner(bunch(table)).model, silent=True).load("m")


def test_saves_of_the_best_epoch_and_of_an_average_are_compared_too(here: Path):
    learn = learner(bunch(shops()))
    learn.fit(1, 1e-2, callbacks=[EMA(), SaveBest("models/best", restore=False)])
    with pytest.raises(ModelError, match=CODE):
        learner(bunch(shops(), seed=2)).load("best")
    learner(bunch(shops(), seed=2, preprocessing="models/best")).load("best")


def test_a_fit_is_not_resumed_with_other_names_of_the_same_codes(here: Path):
    learn = learner(bunch(shops()))
    learn.fit(1, 1e-2, checkpoint="run")
    renamed = changed(shop=np.char.replace(shops()["shop"], "shop", "store"))
    with pytest.raises(SettingError, match='belongs to a different fit: preprocessing: column "shop" '):
        learner(bunch(renamed)).resume("run")
    learner(bunch(shops())).resume("run")


def test_a_loader_of_other_data_is_refused(here: Path):
    learn, other = learner(bunch(shops())), bunch(shops(), seed=2)
    assert other.valid_dl is not None
    for predict in (learn.validate, learn.get_preds, load_predictor(learn.export("b"), device="cpu").get_preds):
        with pytest.raises(DataError, match=f"InMemoryLoader: its rows do not mean what those trained on do: {CODE}"):
            predict(other.valid_dl)
    with pytest.raises(DataError, match=f"valid: its rows do not mean .*{CODE}"):
        DataBunch(learn.data.train_dl, other.valid_dl, device="cpu")
    learn.data.valid_dl = other.valid_dl
    with pytest.raises(DataError, match=f"valid: its rows do not mean .*{CODE}"):
        learn.fit(1, 1e-2)


def test_a_bunch_of_the_loaders_of_a_table_knows_what_they_are(here: Path):
    data = bunch(shops())
    learner(data).save("m")
    again = DataBunch(data.train_dl, data.valid_dl, device="cpu")
    assert again.classes == ["no", "yes"]
    learner(again).load("m")


class Named(TensorDataset):
    """Says what its classes are called."""

    def __init__(self, x: torch.Tensor, classes: list[str] | None) -> None:
        super().__init__(x, torch.arange(len(x)) % 3)
        if classes is not None:
            self.classes = classes


def images(*shape: int, classes: str | None = "abc", scale: float | None = 256.0) -> DataBunch:
    x = torch.arange(60 * 12).reshape(60, 12).to(torch.uint8).reshape(60, *shape)
    dataset = Named(x, None if classes is None else [*classes])
    return DataBunch.create(dataset, dataset, bs=20, device="cpu", pixel_scale=scale)


@pytest.fixture
def saved_images(here: Path) -> None:
    learn = Learner(images(3, 4), MLP(12, 3), silent=True)
    learn.save("m")
    learn.export("b")


def loaded(data: DataBunch, name: str) -> Learner:
    return load_learner("b", data=data) if name == "b" else Learner(data, MLP(12, 3), silent=True).load(name)


@pytest.mark.parametrize("name", ["m", "b"])
@pytest.mark.usefixtures("saved_images")
def test_images_and_classes_that_a_data_set_names(name: str):
    for shape in ((3, 4), (1, 3, 4), (12,)):
        loaded(images(*shape), name)
    with pytest.raises(ModelError, match="class 1 is 'b', here 'c'; expected the same, in the same order"):
        loaded(images(3, 4, classes="acb"), name)
    with pytest.raises(ModelError, match="class 3 is none, here 'd'"):
        loaded(images(3, 4, classes="abcd"), name)
    with pytest.raises(ModelError, match=r"pixels: divided by 256.0, here by 255.0"):
        loaded(images(3, 4, scale=255.0), name)
    with pytest.raises(ModelError, match=r"a row: of shape \(3, 4\), here \(4, 3\)"):
        loaded(images(4, 3), name)
    with pytest.warns(UserWarning, match=r"the classes are called \['a', 'b', 'c'\] in training only; it cannot be"):
        loaded(images(3, 4, classes=None), name)
    x, y = torch.rand(60, 3, 4), torch.arange(60) % 3
    floats = DataBunch.create(TensorDataset(x, y), bs=20, device="cpu")
    floats.train_ds.classes = [*"abc"]
    with pytest.warns(UserWarning, match=r"inputs: uint8 divided by 256, here float32 divided by 1; it cannot be"):
        loaded(floats, name)


class Files(Dataset[Any]):
    """Images that are not in memory, as torchvision's ImageFolder."""

    def __init__(self, classes: str) -> None:
        self.classes = [*classes]

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(12), index % 3


@pytest.mark.usefixtures("saved_images")
def test_the_classes_of_a_data_set_that_is_not_in_memory():
    learn = loaded(DataBunch.create(Files("abc"), Files("abc"), bs=20, device="cpu"), "b")
    assert learn.validate()
    with pytest.raises(DataError, match="DataLoader: its rows do not mean .*: class 1 is 'b', here 'c'"):
        learn.validate(DataLoader(Files("acb"), 20))
    with pytest.raises(ModelError, match="class 1 is 'b', here 'c'"):
        loaded(DataBunch.create(Files("acb"), bs=20, device="cpu"), "b")


def test_labels_that_are_numbers_need_no_names(here: Path):
    x = torch.rand(40, 3)
    seen = DataBunch.create((x, torch.arange(40) % 3), bs=20, device="cpu")
    Learner(seen, MLP(3, 5), silent=True).save("m")
    Learner(DataBunch.create((x, torch.arange(40) % 5), bs=20, device="cpu"), MLP(3, 5), silent=True).load("m")


def old_save(folder: Path, learn: Learner) -> None:
    """Write what earlier versions wrote: weights without their meaning."""
    from onecycle.checkpoint.weights import save_checkpoint

    save_checkpoint(folder, learn.model, None, 0, None)


def test_a_save_of_an_earlier_version_is_loaded_with_a_warning(here: Path):
    learn = learner(bunch(shops()))
    old_save(here / "models" / "old", learn)
    with pytest.warns(UserWarning, match="old: written by an earlier version, without what columns, codes and classes"):
        learner(bunch(shops(), seed=2)).load("old")
    with pytest.raises(SettingError, match="preprocessing: models/old has none; expected a bundle or a save"):
        bunch(shops(), preprocessing="models/old")
    toy = Learner(DataBunch.create((torch.rand(40, 3), torch.arange(40) % 3), bs=20, device="cpu"), MLP(3, 3))
    toy.silent = True
    old_save(here / "models" / "toy", toy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy.load("toy")


def test_a_damaged_description_is_a_damaged_file():
    own = describe_meaning(bunch(shops()))
    for saved in (3, [], {}, {"features": 3}, own | {"features": {"columns": [3]}}, own | {"classes": 3}):
        with pytest.raises(FileError, match="info is not a description of data that onecycle wrote"):
            check_meaning(saved, own, Path("m"))


def test_statistics_that_differ_by_rounding_are_the_same():
    own = describe_meaning(bunch(shops()))
    saved = json.loads(json.dumps(own))
    size = saved["features"]["columns"][1]
    assert size["name"] == "size"
    size["mean"] += 1e-9
    size["std"] *= 1 + 1e-9
    check_meaning(saved, own, Path("m"))
    size["mean"] += 1e-3
    with pytest.raises(ModelError, match='column "size": mean'):
        check_meaning(saved, own, Path("m"))


def test_dates_are_compared_by_their_parts():
    days = np.datetime64("2020-01-01") + np.arange(200)
    table = {"day": days, "y": np.arange(200) % 2}
    own, later = (describe_meaning(bunch(table | {"day": days + shift})) for shift in (0, 400))
    check_meaning(own, own, Path("m"))
    with pytest.raises(ModelError, match='column "day": '):
        check_meaning(own, later, Path("m"))


def test_classes_of_any_type_can_be_described():
    source = SimpleNamespace(
        features=None, target=None, classes=[np.int64(3), float("nan"), Path("a")], pixel_scale=None, row_shape=None
    )
    source.row_dtype = torch.float32
    assert describe_meaning(source)["classes"] == [3, "nan", repr(Path("a"))]


def test_a_trained_model_with_other_data_is_said(here: Path):
    learn = learner(bunch(shops()))
    learner(bunch(shops(), seed=2), model=learn.model)  # not trained yet
    learn.fit(1, 1e-2)
    learner(bunch(shops()), model=learn.model)
    with pytest.warns(UserWarning, match=f"the model was trained on rows that were prepared in another way: {CODE}"):
        learner(bunch(shops(), seed=2), model=learn.model)
    learner(bunch(shops(), seed=2, preprocessing=learn), model=learn.model)


def test_the_classes_of_a_part_of_a_data_set():
    part = Subset(Files("abc"), range(30))
    assert DataBunch.create(part, bs=10, device="cpu").classes == ["a", "b", "c"]
    learn = Learner(DataBunch.create(part, part, bs=10, device="cpu"), MLP(12, 3), silent=True)
    with pytest.raises(DataError, match="class 1 is 'b', here 'c'"):
        learn.validate(DataLoader(Subset(Files("acb"), range(30)), 10))

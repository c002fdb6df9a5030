import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from conftest import toy_arrays
from onecycle import DataBunch
from onecycle.data.loaders import InMemoryLoader, TorchLoader
from onecycle.errors import DataError, DeviceError, SettingError


def test_the_lessons_defaults(toy: DataBunch):
    assert (len(toy.train_dl), len(toy.valid_dl), len(toy.fix_dl)) == (12, 4, 13)
    assert toy.valid_dl.batch_size == toy.train_dl.batch_size == 16
    x, y = toy.one_batch()
    assert (x.shape, y.shape) == ((16, 20), (16,))
    assert (toy.c, toy.classes) == (4, [0, 1, 2, 3])
    assert len(toy.train_ds) == 200
    assert len(toy.valid_ds) == 50
    assert toy.test_ds is None
    assert toy.device == torch.device("cpu")


def test_training_shuffles_and_the_others_do_not(toy: DataBunch):
    x, y = toy.train_ds.tensors
    assert not torch.equal(next(iter(toy.train_dl))[0], x[:16])
    assert torch.equal(next(iter(toy.fix_dl))[1], y[:16])
    assert torch.equal(toy.one_batch("valid")[0], toy.valid_ds.tensors[0][:16])


def test_arrays_tensors_and_lists_are_the_same():
    x, y = toy_arrays()
    bunches = [
        DataBunch.create((x, y), seed=0),
        DataBunch.create((x.numpy(), y.numpy().astype(np.int32)), seed=0),
        DataBunch.create([x.tolist(), y.tolist()], seed=0),
        DataBunch.create(TensorDataset(x, y), seed=0),
        DataBunch.create((x.double(), y.byte()), seed=0),
    ]
    for data in bunches:
        xb, yb = data.one_batch()
        assert (xb.dtype, yb.dtype) == (torch.float32, torch.int64)
        assert torch.equal(xb, bunches[0].train_dl.tensors[0][bunches[0].train_dl.order(0)[:64]])


def test_read_only_and_big_endian_arrays():
    x, y = (part.numpy() for part in toy_arrays())
    x.setflags(write=False)
    data = DataBunch.create((x.astype(">f4"), y[::-1]), seed=0)
    assert torch.equal(data.train_ds.tensors[0], torch.tensor(x.copy()))
    assert data.train_ds.tensors[1].tolist() == y[::-1].tolist()


def test_memory_is_shared_and_not_copied():
    x, y = toy_arrays()
    data = DataBunch.create((x, y))
    assert data.train_dl.tensors[0].data_ptr() == data.fix_dl.tensors[0].data_ptr() == x.data_ptr()


def test_another_data_set_goes_through_torchs_loader():
    class Rows(Dataset):
        classes = ("cat", "dog")

        def __len__(self):
            return 10

        def __getitem__(self, i):
            return torch.ones(3) * i, i % 2

    data = DataBunch.create(Rows(), Rows(), bs=4, num_workers=2, seed=0)
    assert isinstance(data.train_dl, TorchLoader)
    assert data.classes == ["cat", "dog"]
    assert [len(y) for _, y in data.train_dl] == [4, 4]
    assert [y.tolist() for _, y in data.fix_dl] == [[0, 1, 0, 1], [0, 1, 0, 1], [0, 1]]


class Squared(TensorDataset):
    """Rows that are not those of its tensors, as with augmentation."""

    classes = ("cat", "dog", "emu", "fox")

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x.square(), y


class Longer(TensorDataset):
    def __len__(self) -> int:
        return 2 * super().__len__()

    def __getitem__(self, index):
        return super().__getitem__(index % len(self.tensors[0]))


def test_a_kind_of_tensor_data_set_gives_rows_in_its_own_way():
    x, y = toy_arrays()
    data = DataBunch.create(Squared(x, y), Squared(x, y), bs=16, seed=0)
    assert isinstance(data.train_dl, TorchLoader)
    assert (data.classes, data.c, data.inputs) == (["cat", "dog", "emu", "fox"], 4, None)
    for dl in (data.valid_dl, data.fix_dl):
        assert torch.equal(torch.cat([xb for xb, _ in dl]), x.square())
    assert len(DataBunch.create(Longer(x, y), bs=16, seed=0).fix_dl.dataset) == 400


def test_rows_at_once_count_as_a_way_of_its_own():
    class AtOnce(TensorDataset):
        def __getitems__(self, places):
            return [(self.tensors[0][place] * 2, self.tensors[1][place]) for place in places]

    x, y = toy_arrays()
    assert torch.equal(next(iter(DataBunch.create(AtOnce(x, y), bs=16).fix_dl))[0], x[:16] * 2)


def test_a_tensor_data_set_keeps_its_classes_in_memory():
    class Named(TensorDataset):
        @property
        def classes(self):
            return ["a", "b", "c", "d", "e"]

    x, y = toy_arrays()
    data = DataBunch.create(Named(x, y), bs=16)
    assert isinstance(data.train_dl, InMemoryLoader)
    assert (data.classes, data.c) == (["a", "b", "c", "d", "e"], 5)


def test_a_table_of_a_kind_of_tensor_data_set_has_its_rows():
    x, y = toy_arrays()
    found, plain = (DataBunch.from_table(ds, seed=0) for ds in (Squared(x, y), TensorDataset(x.square(), y)))
    assert torch.equal(found.inputs, plain.inputs)


def test_straight_from_torch_loaders():
    x, y = toy_arrays()
    data = DataBunch(DataLoader(TensorDataset(x, y), 32, shuffle=True), DataLoader(TensorDataset(x, y), 50))
    assert isinstance(data.train_dl, TorchLoader)
    assert (len(data.train_dl), len(data.valid_dl), data.c) == (7, 4, 4)
    assert torch.equal(next(iter(data.fix_dl))[0], x[:32])


def test_fewer_rows_than_bs_train_on_one_short_batch():
    x, y = toy_arrays(10)
    with pytest.warns(UserWarning, match="10 training rows are fewer than bs 64: an epoch is one batch of 10"):
        data = DataBunch.create((x, y))
    assert [len(y) for _, y in data.train_dl] == [10]


def test_the_seed_follows_torchs_unless_given():
    x, y = toy_arrays()
    torch.manual_seed(11)
    first, second = DataBunch.create((x, y)), DataBunch.create((x, y))
    assert first.seed == second.seed == 11
    assert torch.equal(first.one_batch()[0], second.one_batch()[0])
    assert not torch.equal(first.one_batch()[0], DataBunch.create((x, y), seed=12).one_batch()[0])


def test_regression_targets():
    x, _ = toy_arrays()
    data = DataBunch.create((x, x[:, :2]))
    assert (data.classes, data.c) == (None, 2)
    assert DataBunch.create((x, x[:, 0])).c == 1


def test_show_batch_draws_images_and_rows(toy: DataBunch):
    figure = toy.show_batch(rows=2)
    assert len(figure.axes) == 4
    assert len(figure.axes[0].lines) == 1
    images = DataBunch.create((torch.rand(20, 784), torch.arange(20)), bs=10)
    figure = images.show_batch()
    assert figure.axes[0].images[0].get_array().shape == (28, 28)
    titles = [ax.get_title() for ax in figure.axes]
    assert sorted(titles) != sorted(set(titles)) or all(title.isdigit() for title in titles)


@pytest.mark.parametrize("rows", [0, -1, 1.5])
def test_no_rows_to_draw(toy: DataBunch, rows: object):
    with pytest.raises(SettingError, match=r"rows is .*; expected a whole number of at least 1"):
        toy.show_batch(rows=rows)  # pyright: ignore


# --- what cannot be trained on --------------------------------------------------------------------------------------

X, Y = (part.numpy() for part in toy_arrays(20))
HOLED = X.copy()
HOLED[3, 7] = np.nan
ENDLESS = X.copy()
ENDLESS[0, 1] = np.inf


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ((X, Y[:-1]), "train: x has 20 rows and y has 19 rows; expected equal lengths"),
        ((X[:0], Y[:0]), "train has no rows; expected at least one"),
        (None, "train has no rows; expected a data set or a pair"),
        ((HOLED, Y), r"train\.x contains nan at row 3, column 7 \(1 such values\); expected finite numbers"),
        ((ENDLESS, Y), r"train\.x contains inf at row 0, column 1"),
        ((X, np.array([np.nan] * 20)), r"train\.y contains nan at row 0"),
        ((X.astype(str), Y), r"train\.x has dtype <U32, for example .*; expected numbers: encode text"),
        ((X, Y.astype(object)), r"train\.y has dtype object, for example .*; expected numbers"),
        (5.0, r"train\.x is a single number"),
    ],
)
def test_data_that_cannot_be_trained_on(train: object, message: str):
    with pytest.raises(DataError, match=message):
        DataBunch.create(train, bs=4)


def test_the_validation_set_is_looked_at_too():
    with pytest.raises(DataError, match=r"valid\.x contains nan at row 3"):
        DataBunch.create((X, Y), (HOLED, Y), bs=4)


@pytest.mark.parametrize("bs", [0, -1, 2.5, True, "64"])
def test_batch_sizes_that_cannot_be_used(bs: object):
    with pytest.raises(SettingError, match=r"bs is .*; expected a whole number of at least 1"):
        DataBunch.create((X, Y), bs=bs)  # pyright: ignore


@pytest.mark.parametrize("seed", [-1, 1.5, "a"])
def test_seeds_that_cannot_be_used(seed: object):
    with pytest.raises(SettingError, match=r"seed is .*; expected a whole number of at least 0"):
        DataBunch.create((X, Y), bs=4, seed=seed)  # pyright: ignore


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        DeviceError, match='unknown device "cpuu"; expected cpu, cuda, cuda:N or mps; did you mean "cpu"?'
    ):
        DataBunch.create((X, Y), bs=4, device="cpuu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match='device "cuda" is not on this machine; use "cpu"'):
            DataBunch.create((X, Y), bs=4, device="cuda")
        monkeypatch.setenv("ONECYCLE_DEVICE", "cuda")
        with pytest.raises(DeviceError, match='device "cuda" is not on this machine'):
            DataBunch.create((X, Y), bs=4)


def test_a_set_that_is_not_there(toy: DataBunch):
    with pytest.raises(DataError, match="there is no test set; pass test_ds to DataBunch.create"):
        toy.one_batch("test")
    with pytest.raises(SettingError, match='unknown data set "vlaid"; expected one of train, valid, test, fix'):
        toy.one_batch("vlaid")


def test_the_training_rows_in_order_are_those_of_the_sampler():
    from torch.utils.data import SubsetRandomSampler, WeightedRandomSampler

    x, y = toy_arrays()
    data = DataBunch(DataLoader(TensorDataset(x, y), 16, sampler=SubsetRandomSampler([5, 3, 1])))
    assert torch.equal(next(iter(data.fix_dl))[0], x[[1, 3, 5]])
    weighted = DataBunch(DataLoader(TensorDataset(x, y), 16, sampler=WeightedRandomSampler([1.0] * 200, 50)))
    with pytest.raises(DataError, match="the training rows are not known in order"):
        weighted.dl("fix")

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from conftest import toy_arrays
from onecycle import DataBunch
from onecycle.data.loaders import InMemoryLoader, TorchLoader, sha256_of
from onecycle.errors import DataError

CPU = torch.device("cpu")


def loader(rows: int = 10, bs: int = 4, **options) -> InMemoryLoader:
    return InMemoryLoader(TensorDataset(torch.arange(rows).float(), torch.arange(rows)), bs, CPU, seed=5, **options)


def order(batches) -> list[list[int]]:
    return [y.tolist() for _, y in batches]


def test_in_order_without_shuffling():
    assert order(loader()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(loader()) == 3


def test_the_last_short_batch_can_be_dropped():
    assert order(loader(drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [len(rows) for rows in order(loader(shuffle=True, drop_last=True))] == [4, 4]
    assert len(loader(drop_last=True)) == 2


def test_x_and_y_stay_together():
    for x, y in loader(shuffle=True):
        assert torch.equal(x.long(), y)


def test_an_epoch_is_a_function_of_seed_and_number():
    one, other = loader(rows=100, shuffle=True), loader(rows=100, shuffle=True)
    assert order(one.epoch(3)) == order(other.epoch(3))
    assert order(one.epoch(3)) != order(one.epoch(4))
    other.seed = 6
    assert order(one.epoch(3)) != order(other.epoch(3))
    assert sorted(i for rows in order(one.epoch(3)) for i in rows) == list(range(100))


def test_iterating_by_hand_shuffles_every_time_and_gives_the_epochs_in_turn():
    by_hand = loader(rows=100, shuffle=True)
    assert [order(by_hand), order(by_hand)] == [order(by_hand.epoch(0)), order(by_hand.epoch(1))]


@pytest.mark.parametrize("wrapped", [False, True])
def test_all_rows_in_order_of_a_loader_that_shuffles_and_drops(wrapped: bool):
    shuffled = loader(shuffle=True, drop_last=True)
    if wrapped:
        shuffled = TorchLoader(DataLoader(shuffled.dataset, 4, shuffle=True, drop_last=True), CPU, 0)
    next(iter(shuffled))
    fixed = DataBunch(shuffled, device="cpu").fix_dl
    assert fixed is not None
    assert order(fixed) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(order(shuffled)) == 2
    if isinstance(shuffled, InMemoryLoader) and isinstance(fixed, InMemoryLoader):
        assert all(a is b for a, b in zip(shuffled.tensors, fixed.tensors, strict=True))


def test_somebody_elses_loader_does_not_say_what_its_rows_are():
    class Theirs:
        dataset, batch_size, in_order = range(4), 2, True

        def __len__(self) -> int:
            return 2

        def __iter__(self):
            return self.epoch(0)

        def epoch(self, number: int):
            return iter(loader(4, 2, shuffle=True).epoch(number))

    data = DataBunch(Theirs(), device="cpu")
    assert data.fix_dl is None
    with pytest.raises(DataError, match="the training rows are not known in order: their loader does not say which"):
        data.dl("fix")


def test_the_workers_of_a_loader_read_its_rows_in_order_too():
    def prepare(worker: int) -> None: ...

    given = DataLoader(Noisy(), 16, shuffle=True, num_workers=1, worker_init_fn=prepare)
    fixed = DataBunch(given, device="cpu").fix_dl
    assert isinstance(fixed, TorchLoader)
    assert (fixed.loader.num_workers, fixed.loader.worker_init_fn) == (1, prepare)


def test_the_global_generator_is_not_touched():
    before = torch.get_rng_state()
    list(loader(shuffle=True))
    x, y = toy_arrays()
    list(TorchLoader(DataLoader(TensorDataset(x, y), 16, shuffle=True), CPU, 0))
    assert torch.equal(before, torch.get_rng_state())


def test_several_inputs_and_no_targets():
    x = torch.arange(4)
    ((inputs, y),) = InMemoryLoader(TensorDataset(x.float(), x * 2, x), 4, CPU, 0)
    assert [type(part) for part in inputs] == [torch.Tensor] * 2
    assert torch.equal(y, x)
    ((inputs, y),) = InMemoryLoader(TensorDataset(x.float()), 4, CPU, 0)
    assert y is None


def test_bytes_become_floats_a_batch_at_a_time():
    dl = InMemoryLoader(TensorDataset(torch.full((4, 2), 200, dtype=torch.uint8), torch.zeros(4)), 2, CPU, 0)
    assert dl.tensors[0].dtype is torch.uint8
    assert next(iter(dl))[0].tolist() == [[200.0, 200.0]] * 2


# a batch is the caller's to write to


class Batches(Dataset):
    """A data set whose rows are batches, as views of its tensors."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> tuple[torch.Tensor, dict[str, torch.Tensor], np.ndarray]:
        rows = slice(i, i + 1)
        return self.x[rows], {"again": self.x[rows]}, self.y[rows].numpy()


def overwrite(batch) -> None:
    for part in batch:
        if isinstance(part, torch.Tensor | np.ndarray):
            part[...] = 0
        elif part is not None:
            overwrite(part.values() if isinstance(part, dict) else part)


X, Y = torch.arange(1, 13).float().reshape(4, 3), torch.arange(1, 5)


@pytest.mark.parametrize("kind", ["float32", "int64", "uint8", "bool", "strided", "two inputs", "no targets"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("bs", [4, 3, 1])
def test_writing_to_a_batch_does_not_write_to_the_data(kind: str, shuffle: bool, bs: int):
    x = {"int64": X.long(), "uint8": X.byte(), "bool": X > 2, "strided": torch.cat([X, X], 1)[:, 1:4]}.get(kind, X)
    tensors = {"two inputs": (x.clone(), X.clone(), Y.clone()), "no targets": (x.clone(),)}.get(kind, (x, Y.clone()))
    before = [tensor.clone() for tensor in tensors]
    dl = InMemoryLoader(TensorDataset(*tensors), bs, CPU, 5, shuffle=shuffle)
    expected = [[part.clone() for part in batch if isinstance(part, torch.Tensor)] for batch in dl.epoch(0)]
    for batch in (*dl.epoch(0), *dl, dl.peek(), dl.peek(bs), *dl.unshuffled()):
        overwrite(batch)
    assert all(map(torch.equal, tensors, before))
    found = [[part for part in batch if isinstance(part, torch.Tensor)] for batch in dl.epoch(0)]
    assert all(
        torch.equal(a, b) for old, new in zip(expected, found, strict=True) for a, b in zip(old, new, strict=True)
    )


@pytest.mark.parametrize("by_hand", [False, True])
def test_nor_does_it_write_to_the_rows_of_a_torch_loader(by_hand: bool):
    rows = Batches(X.clone(), Y.clone())
    given = DataLoader(rows, 1, collate_fn=lambda rows: rows[0]) if by_hand else DataLoader(rows, None)
    dl = TorchLoader(given, CPU, 0)
    first = [(x[0].tolist(), x[1]["again"].tolist(), np.asarray(y).tolist()) for x, y in dl]
    for batch in dl:
        overwrite(batch)
    assert torch.equal(rows.x, X)
    assert torch.equal(rows.y, Y)
    assert [(x[0].tolist(), x[1]["again"].tolist(), np.asarray(y).tolist()) for x, y in dl] == first


def test_batches_have_the_same_layout_shuffled_or_not():
    x = torch.arange(24).float().reshape(4, 6)[:, 1:4]
    for shuffle in (False, True):
        dl = InMemoryLoader(TensorDataset(x, Y), 2, CPU, 5, shuffle=shuffle)
        assert all(batch.stride() == (3, 1) for batch, _ in dl)
        assert torch.equal(torch.cat([batch for batch, _ in dl.unshuffled()]), x)


class Noisy(Dataset):
    """A data set that draws from torch's global generator, as augmentation does."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.randn(3) + i, i % 4


def test_a_torch_loader_is_reproducible_with_its_augmentation():
    runs = [TorchLoader(DataLoader(Noisy(), 16, shuffle=True), CPU, seed=1) for _ in range(2)]
    first, second = ([(x, y) for x, y in dl.epoch(2)] for dl in runs)
    assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in zip(first, second, strict=True))
    other = [x for x, _ in runs[0].epoch(3)]
    assert not torch.equal(first[0][0], other[0])


def test_a_torch_loader_leaves_the_callers_draws_alone():
    torch.manual_seed(8)
    expected = [torch.rand(1) for _ in range(3)]
    torch.manual_seed(8)
    found = [torch.rand(1) for _ in TorchLoader(DataLoader(Noisy(), 16, shuffle=True), CPU, seed=1)]
    assert found == expected


def test_dicts_and_single_tensors_pass_through_a_torch_loader():
    rows = [{"a": np.float32(i), "b": i} for i in range(4)]
    ((x, y),) = TorchLoader(DataLoader(rows, 4), CPU, 0)  # pyright: ignore
    assert x["b"].tolist() == [0, 1, 2, 3]
    assert y is None


def test_a_loader_without_a_length():
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter([])

    with pytest.raises(DataError, match="the DataLoader has no length"):
        len(TorchLoader(DataLoader(Stream()), CPU, 0))


@pytest.mark.parametrize("batch_size", [2, None])
def test_a_batch_of_none_is_no_end_of_the_epoch(batch_size: int | None):
    given = DataLoader([0.0, 1.0, 2.0, 3.0], batch_size, collate_fn=lambda rows: None)  # pyright: ignore
    with pytest.raises(
        DataError, match="the DataLoader returned None for a batch; expected tensors: see what its collate"
    ):
        list(TorchLoader(given, CPU, 0))


class NumpyNoise(Noisy):
    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([np.random.rand(), random.random()]) + i, i % 4


def test_asking_whether_it_is_a_regression_moves_no_generator():
    data = DataBunch.create(NumpyNoise(), bs=16, seed=1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert not data.is_regression()
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_numpy_python_and_the_loaders_own_generator_are_lent_too():
    own = torch.Generator().manual_seed(1)
    dl = TorchLoader(DataLoader(NumpyNoise(), 16, shuffle=True, generator=own), CPU, seed=1)
    before = own.get_state(), np.random.get_state()[1].tolist(), random.getstate()
    first, again, other = ([x for x, _ in dl.epoch(k)] for k in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    after = own.get_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_a_bit_a_shape_and_a_type_make_another_checksum():
    x = torch.rand(200, 20)
    other = x.clone()
    other[199, 19] = torch.nextafter(other[199, 19], torch.tensor(9.0))
    found = [sha256_of([each]) for each in (x, other, x.view(200, 4, 5), x[:199], x.view(torch.int32), x.double())]
    assert len({*found}) == len(found)
    assert sha256_of([x.clone()]) == found[0]
    for each in (torch.zeros(3, 2, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.bool), torch.zeros(2, 5_000_000)):
        assert len(sha256_of([each, torch.tensor(1)])) == 64


class Counting(torch.utils.data.Dataset):
    """Rows with noise of torch's generator, and a count that depends on the rows before."""

    def __init__(self) -> None:
        self.count = 0

    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        self.count += 1
        return torch.randn(3) + self.count, i


def test_workers_that_persist_do_not_make_an_epoch_depend_on_those_before():
    def loader(persistent: bool) -> TorchLoader:
        source = torch.utils.data.DataLoader(Counting(), 4, shuffle=True, num_workers=2, persistent_workers=persistent)
        return TorchLoader(source, torch.device("cpu"), 5)

    both, second, plain = loader(True), loader(True), loader(False)
    epochs = [[x for x, _ in both.epoch(k)] for k in range(2)]
    assert all(torch.equal(a, b) for a, (b, _) in zip(epochs[1], second.epoch(1), strict=True))
    assert all(torch.equal(a, b) for a, (b, _) in zip(epochs[1], plain.epoch(1), strict=True))
    assert not torch.equal(epochs[0][0], epochs[1][0])

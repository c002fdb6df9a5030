"""The lesson from its first cell to its last, and the ladder it climbs, on real MNIST."""

import ast
import contextlib
import io
import linecache
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn, optim

from conftest import Net
from onecycle import DataBunch, Learner, fetch
from onecycle.data.datasets import mnist_arrays, mnist_floats

pytestmark = pytest.mark.slow


class Ran(NamedTuple):
    """A cell that has run: the value of its last line, what it printed, and what it drew."""

    value: Any
    text: str
    figures: list[Figure]


def run_cell(source: str, names: dict[str, Any]) -> Ran:
    """Run a cell as a notebook does, `names` being the notebook's variables."""
    name = f"cell {len(names)}"
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name  # as notebooks do it
    lines = ast.parse(source).body
    last = lines.pop() if lines and isinstance(lines[-1], ast.Expr) else None
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        exec(compile(ast.Module(lines, []), name, "exec"), names)
        value = eval(compile(ast.Expression(last.value), name, "eval"), names) if last else None
    figures = [plt.figure(number) for number in plt.get_fignums()]
    plt.close("all")
    return Ran(value, text.getvalue(), figures)


@pytest.fixture(scope="module")
def ran(cells: list[str], tmp_path_factory: pytest.TempPathFactory) -> Generator[list[Ran]]:
    """All 33 cells, run in order."""
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONECYCLE_HOME", str(tmp_path_factory.mktemp("lesson")))
        fetch("mnist")
        yield [run_cell(source.removeprefix("%matplotlib inline\n"), names) for source in cells]


def test_there_are_33_cells_and_three_kinds_of_change(cells: list[str]):
    assert len(cells) == 33
    assert "from onecycle.basics import *" in cells[0]
    assert not any("fastai" in cell or "cuda" in cell for cell in cells)


def test_the_data_is_what_the_lesson_prints(ran: list[Ran]):
    (file,) = ran[2].value
    assert type(file) is type(Path())
    assert file.name == "mnist.pkl.gz"
    assert ran[4].value == (50000, 784)
    assert repr(ran[5].value) == "(torch.Size([50000, 784]), tensor(0), tensor(9))"
    assert repr(ran[8].value) == "(torch.Size([64, 784]), torch.Size([64]))"


def test_the_model_is_what_the_lesson_prints(ran: list[Ran]):
    linear = "Linear(in_features=784, out_features=10, bias=True)"
    assert repr(ran[11].value) == f"Mnist_Logistic(\n  (lin): {linear}\n)"
    assert repr(ran[12].value) == linear
    assert repr(ran[13].value) == "torch.Size([64, 10])"
    assert repr(ran[14].value) == "[torch.Size([10, 784]), torch.Size([10])]"


def test_the_image_is_drawn(ran: list[Ran]):
    (figure,) = ran[4].figures
    (image,) = figure.axes[0].images
    assert np.asarray(image.get_array()).shape == (28, 28)
    assert image.get_cmap().name == "gray"


@pytest.mark.parametrize("cell", [19, 23, 27], ids=["logistic", "two layers", "adam"])
def test_the_losses_are_drawn_and_fall(ran: list[Ran], cell: int):
    (figure,) = ran[cell].figures
    losses = figure.axes[0].lines[0].get_ydata()
    assert len(losses) == 781
    assert losses[0] == pytest.approx(np.log(10), abs=0.2)
    assert np.mean(losses[-100:]) < 0.7
    assert np.mean(losses[-100:]) < np.mean(losses[200:300]) < np.mean(losses[:100])


def test_the_finder_ends_with_its_line_and_is_drawn(ran: list[Ran]):
    assert ran[29].text == "LR Finder is complete, type {learner_name}.recorder.plot() to see the graph.\n"
    (figure,) = ran[29].figures
    (ax,) = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == ("Learning Rate", "Loss", "log")
    assert ax.xaxis.get_major_formatter()(1e-2) == "1e-02"
    lrs = ax.lines[0].get_xdata()
    assert lrs[0] == pytest.approx(1e-7 * 1e8 ** (10 / 100))
    assert 0.1 < lrs[-1] < 10


def test_the_table_is_the_lessons(ran: list[Ran]):
    head, row = (line.split() for line in ran[30].text.splitlines())
    assert head == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    assert row[0] == "0"
    assert all(re.fullmatch(r"\d\.\d{6}", value) for value in row[1:4])
    assert re.fullmatch(r"\d\d:\d\d", row[4])
    train_loss, valid_loss, found = map(float, row[1:4])
    assert 0.1 < train_loss < 0.2
    assert 0.1 < valid_loss < 0.16
    assert found > 0.955


def test_the_schedule_is_drawn(ran: list[Ran]):
    (figure,) = ran[31].figures
    assert tuple(figure.get_size_inches()) == (12, 4)
    lr, mom = figure.axes
    assert (lr.get_xlabel(), lr.get_ylabel()) == ("Iterations", "Learning Rate")
    assert (mom.get_xlabel(), mom.get_ylabel()) == ("Iterations", "Momentum")
    lrs, moms = lr.lines[0].get_ydata(), mom.lines[0].get_ydata()
    assert [lrs[0], lrs[117], lrs[234], lrs[780]] == pytest.approx([4e-4, 5.2e-3, 1e-2, 1.224635772e-7])
    assert [moms[0], moms[234]] == pytest.approx([0.95, 0.85])


def test_the_losses_of_the_cycle_are_drawn(ran: list[Ran]):
    (figure,) = ran[32].figures
    (ax,) = figure.axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Batches processed", "Loss")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Train", "Validation"]
    train, valid = ax.lines
    assert len(train.get_ydata()) == 781
    assert list(valid.get_xdata()) == [781]


def test_the_ladder_agrees():
    """By hand, with torch.optim and with the Learner: the same losses from the same weights and batch order."""
    lr, wd = 2e-2, 1e-5
    images, labels = mnist_arrays().train
    x, y = torch.from_numpy(mnist_floats(images[:6400])), torch.from_numpy(labels[:6400].astype(np.int64))
    data = DataBunch.create((x, y), bs=64, seed=1)
    loss_func = nn.CrossEntropyLoss()

    def start() -> nn.Module:
        torch.manual_seed(2)
        return Net(784, 50, 10).to(data.device)

    net, by_hand = start(), []
    for xb, yb in data.train_dl.epoch(0):
        loss = loss_func(net(xb), yb)
        (loss + wd * sum((p**2).sum() for p in net.parameters())).backward()
        with torch.no_grad():
            for p in net.parameters():
                p.sub_(lr * p.grad)
                p.grad.zero_()
        by_hand.append(loss.item())

    net, with_optim = start(), []
    opt = optim.SGD(net.parameters(), lr, weight_decay=2 * wd)  # the derivative of wd * p**2 is 2 * wd * p
    for xb, yb in data.train_dl.epoch(0):
        loss = loss_func(net(xb), yb)
        loss.backward()
        opt.step()
        opt.zero_grad()
        with_optim.append(loss.item())

    learn = Learner(data, start(), loss_func, opt_func=optim.SGD, wd=2 * wd, true_wd=False, silent=True)
    learn.fit(1, lr)

    assert len(by_hand) == 100
    assert np.mean(by_hand[-10:]) < 0.9 * by_hand[0]
    assert with_optim == pytest.approx(by_hand, abs=2e-6)
    assert learn.recorder.record.batch_losses == pytest.approx(by_hand, abs=2e-6)

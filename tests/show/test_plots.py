import numpy as np
import pytest

from conftest import Net, seeded
from onecycle import DataBunch, Learner, Record, accuracy, error_rate
from onecycle.core.lr_curve import LRCurve
from onecycle.errors import SettingError
from onecycle.show.plots import as_image, plot_confusion_matrix, plot_lr_find, plot_metrics


@pytest.fixture
def learn(toy: DataBunch) -> Learner:
    learner = Learner(toy, seeded(Net()), metrics=[accuracy, error_rate], silent=True)
    learner.fit_one_cycle(2, 1e-2)
    return learner


def labels(ax) -> tuple[str, str]:
    return ax.get_xlabel(), ax.get_ylabel()


def test_learning_rate_and_momentum(learn: Learner):
    figure = learn.recorder.plot_lr(show_moms=True)
    assert figure.get_size_inches().tolist() == [12, 4]
    assert [labels(ax) for ax in figure.axes] == [("Iterations", "Learning Rate"), ("Iterations", "Momentum")]
    assert figure.axes[0].lines[0].get_ydata().tolist() == learn.recorder.lrs
    assert figure.axes[1].lines[0].get_ydata().tolist() == learn.recorder.moms
    assert len(learn.recorder.plot_lr().axes) == 1


def test_losses(learn: Learner):
    figure = learn.recorder.plot_losses()
    (ax,) = figure.axes
    assert labels(ax) == ("Batches processed", "Loss")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Train", "Validation"]
    assert ax.lines[1].get_xdata().tolist() == [12, 24]
    assert list(ax.lines[1].get_ydata()) == learn.recorder.val_losses


def test_metrics(learn: Learner):
    figure = learn.recorder.plot_metrics()
    assert [labels(ax) for ax in figure.axes] == [("Batches processed", name) for name in ("accuracy", "error_rate")]
    assert list(figure.axes[1].lines[0].get_ydata()) == [row[1] for row in learn.recorder.metrics]


@pytest.mark.parametrize("values", [[0.5, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
def test_a_dot_at_the_edge_of_a_share_is_not_cut(values: list[float]):
    record = Record(nb_batches=[5, 5], epochs=[0, 1], metrics=[[v] for v in values], metric_names=["f1_score"])
    figure = plot_metrics(record)
    [ax] = figure.axes
    [line] = ax.lines
    figure.draw_without_rendering()
    radius = line.get_markersize() / 2 / 72 * figure.dpi
    bottom, top = ax.bbox.y0, ax.bbox.y1
    for _, y in ax.transData.transform([*zip(line.get_xdata(), values, strict=True)]):
        assert bottom <= y - radius
        assert y + radius <= top


def test_the_finders_plot():
    curve = LRCurve([10 ** (i / 10 - 7) for i in range(80)], [2.0 - i / 50 for i in range(80)])
    (ax,) = plot_lr_find(curve).axes
    assert labels(ax) == ("Learning Rate", "Loss")
    assert ax.get_xscale() == "log"
    assert ax.xaxis.get_major_formatter()(1e-2) == "1e-02"
    assert list(ax.lines[0].get_xdata()) == curve.lrs[10:75]
    assert len(plot_lr_find(curve, suggestion=True).axes[0].lines) == 2


def test_nothing_to_plot(toy: DataBunch):
    learner = Learner(toy, Net(), silent=True)
    for call in (learner.recorder.plot, learner.recorder.plot_lr, learner.recorder.plot_losses):
        with pytest.raises(SettingError, match="nothing is recorded yet; run fit, fit_one_cycle or lr_find first"):
            call()
    learner.fit(1, 1e-3)
    with pytest.raises(SettingError, match="there are no metrics to plot; give the learner some"):
        learner.recorder.plot_metrics()
    with pytest.raises(SettingError, match="12 points, of which 10 and 5 are skipped, leave none to plot"):
        learner.recorder.plot()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((784,), (28, 28)), ((1, 8, 9), (8, 9)), ((3, 8, 9), (8, 9, 3)), ((8, 9), (8, 9)), ((20,), None), ((16,), None)],
)
def test_rows_that_are_images(shape, expected):
    image = as_image(np.zeros(shape))
    assert (image.shape if image is not None else None) == expected


@pytest.mark.parametrize("name", ["cost in $x$", r"$\\frac{$", "a\x1b[31m$", "$\\undefined$"])
def test_names_are_text(name: str):
    """A dollar begins no formula, in a plot as well as in a report, and control characters are escaped."""
    matrix = plot_confusion_matrix(np.eye(2, dtype=int), [name, "b"])
    record = Record(
        epochs=[0], nb_batches=[1], metric_names=[name], metrics=[[0.5]], losses=[1.0], lrs=[0.1], seconds=[1]
    )
    for figure in (matrix, plot_metrics(record)):
        figure.canvas.draw()
    shown = name.replace("\x1b", "\\x1b")
    assert matrix.axes[0].get_xticklabels()[0].get_text() == shown
    assert not matrix.axes[0].get_xticklabels()[0].get_parse_math()

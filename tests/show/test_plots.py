import numpy as np
import pytest

from conftest import Net, seeded, toy_arrays
from onecycle import ClassificationInterpretation, DataBunch, Learner, Record, accuracy, error_rate
from onecycle.core.record import LRCurve
from onecycle.errors import DataError, SettingError
from onecycle.show.plots import as_image, plot_lr_find, plot_metrics


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


def test_an_interpretation_counts_the_mistakes(learn: Learner):
    found = ClassificationInterpretation.from_learner(learn)
    probs, targets = learn.get_preds()
    matrix = found.confusion_matrix()
    assert matrix.sum() == 50
    assert matrix.trace() / 50 == pytest.approx(learn.validate()[1])
    wrong = [(int(t), int(p)) for t, p in zip(targets, probs.argmax(1), strict=True) if t != p]
    assert sum(n for _, _, n in found.most_confused()) == len(wrong)
    losses, rows = found.top_losses(3)
    assert losses[0] == pytest.approx(max(-probs[i, t].log().item() for i, t in enumerate(targets)), rel=1e-4)
    assert targets[rows[0]] in found.classes
    found.plot_confusion_matrix()
    assert len(found.plot_top_losses(4).axes) >= 4
    summary = found.summary()
    assert len(summary["top_losses"]) == 12
    assert Record.from_json(Record(mistakes=summary).to_json()).mistakes == summary


def test_images_go_into_the_record_as_pixels():
    probs = np.array([[0.9, 0.1], [0.2, 0.8]], dtype=np.float32)
    x = np.linspace(0, 1, 128, dtype=np.float32).reshape(2, 64)
    found = ClassificationInterpretation(probs, np.array([0, 0]), ["cat", "dog"], x)
    image = found.summary()["top_losses"][0]["image"]
    assert (len(image), len(image[0]), min(map(min, image)), max(map(max, image))) == (8, 8, 0, 255)
    assert found.most_confused() == [("cat", "dog", 1)]


def test_a_right_row_among_the_highest_losses_is_not_called_a_mistake():
    probs = np.array([[0.9, 0.1], [0.19, 0.81]], dtype=np.float32)
    found = ClassificationInterpretation(probs, np.array([1, 1]), ["cat", "dog"], np.ones((2, 64)))
    titles = [ax.get_title() for ax in found.plot_top_losses().axes][:2]
    assert titles == ["cat, not dog\nloss 2.30", "dog, right, p 0.81\nloss 0.21"]


def test_a_regression_has_no_confusion_matrix():
    x, _ = toy_arrays()
    learner = Learner(DataBunch.create((x, x[:, 0]), (x, x[:, 0]), bs=16), Net(outputs=1), silent=True)
    with pytest.raises(DataError, match="the valid set has no class labels"):
        ClassificationInterpretation.from_learner(learner)


def test_probabilities_that_do_not_belong_to_the_targets():
    with pytest.raises(DataError, match=r"probs has shape \(2, 2\) for 3 targets up to 1"):
        ClassificationInterpretation(np.ones((2, 2)), np.array([0, 1, 1]), [0, 1])
    with pytest.raises(DataError, match="probs are not probabilities"):
        ClassificationInterpretation(np.ones((3, 2)), np.array([0, 1, 1]), [0, 1])

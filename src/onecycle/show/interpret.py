"""Where a model is wrong: confusion matrix, highest losses, largest errors, and their summary for the record."""

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from onecycle.core.choices import SetName
from onecycle.errors import DataError, printable
from onecycle.show.plots import as_image, finish_figure, plot_confusion_matrix, plot_examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

Array = np.ndarray[Any, Any]
_MAX_POINTS = 500  # of the scatter plot of a regression, each of which is an element of the report


class LearnerLike(Protocol):
    """The attributes of a Learner that interpretations use. The plots do not import the Learner itself."""

    @property
    def data(self) -> Any: ...
    @property
    def classes(self) -> list[Any] | None: ...
    @property
    def features(self) -> object | None: ...
    @property
    def target(self) -> Any: ...
    def get_preds(self, which: SetName = ..., /) -> "tuple[Any, Any]": ...


class ClassificationInterpretation:
    """The errors of a classifier on a data set.

    Args:
        probs: Predicted probabilities, shape (n, classes).
        targets: Class labels, shape (n,), integers.
        classes: Names of the classes. Missing names are filled up with class numbers.
        x: Inputs of the rows, shape (n, ...), to show them; None if they cannot be shown.

    Attributes:
        predicted: The class with the highest probability, shape (n,).
        losses: Cross-entropy `-log(probs[i, targets[i]])` of each row i, shape (n,).

    Raises:
        DataError: If the shapes do not fit, or rows of `probs` do not sum to 1.

    Example:
        >>> interp = ClassificationInterpretation.from_learner(learn)
        >>> interp.most_confused()
        >>> interp.plot_top_losses(9)
    """

    def __init__(self, probs: Array, targets: Array, classes: list[Any], x: Array | None = None) -> None:
        if probs.ndim != 2 or probs.shape[0] != len(targets) or probs.shape[1] < int(targets.max()) + 1:
            raise DataError(
                f"probs has shape {probs.shape} for {len(targets)} targets up to {targets.max()}; "
                "expected a row for each target and a column for each class"
            )
        if not np.allclose(probs.sum(1), 1, atol=1e-3) or probs.min() < 0:
            raise DataError(
                "probs are not probabilities; expected rows of at least 0 that sum to 1, as softmax returns them"
            )
        self.probs, self.targets, self.x = probs, targets, x
        # a model may have outputs that no training row is labelled with
        self.classes = [*classes, *range(len(classes), probs.shape[1])]
        self.predicted: Array = probs.argmax(1)
        target_probs = probs[np.arange(len(targets)), targets]
        self.losses: Array = -np.log(np.maximum(target_probs, np.finfo(target_probs.dtype).tiny))

    @classmethod
    def from_learner(cls, learn: LearnerLike, which: SetName = "valid") -> "ClassificationInterpretation":
        """Predict a data set of a learner and interpret the predictions.

        Args:
            learn: The learner, whose loss is a cross-entropy.
            which: "valid", "train", "test" or "fix".

        Returns:
            The interpretation.

        Raises:
            DataError: If there is no such set, or it has no class labels.

        Example:
            >>> ClassificationInterpretation.from_learner(learn, "test")
        """
        probs, targets = _one_output(learn, which)
        if bool(probs.isnan().any()):
            raise DataError("the model's output contains NaN, which is no class; get_preds shows its output")
        if targets is None or targets.is_floating_point() or probs.ndim != 2 or probs.shape[1] < 2:
            raise DataError(f"the {which} set has no class labels; an interpretation compares predictions with them")
        tensors = getattr(learn.data.dl("fix" if which == "train" else which).dataset, "tensors", None)
        # the encoded numbers of a table's row are not worth showing
        x = tensors[0].cpu().numpy() if tensors and learn.features is None else None
        return cls(probs.numpy(), targets.numpy(), learn.classes or [], x)

    def confusion_matrix(self) -> Array:
        """Count the rows of each actual class that were predicted as each class.

        Returns:
            Counts, shape (classes, classes): row the actual class, column the predicted one.
        """
        counts = np.zeros((len(self.classes),) * 2, dtype=np.int64)
        np.add.at(counts, (self.targets, self.predicted), 1)
        return counts

    def most_confused(self, min_val: int = 1) -> list[tuple[Any, Any, int]]:
        """List the pairs of classes that are confused.

        Args:
            min_val: The smallest count to list.

        Returns:
            Tuples (actual, predicted, count), highest count first.
        """
        counts = self.confusion_matrix()
        np.fill_diagonal(counts, 0)
        pairs = [(self.classes[i], self.classes[j], int(counts[i, j])) for i, j in np.argwhere(counts >= min_val)]
        return sorted(pairs, key=lambda pair: pair[2], reverse=True)

    def top_losses(self, k: int = 9) -> tuple[Array, Array]:
        """Return the highest losses.

        Args:
            k: How many.

        Returns:
            The losses, highest first, and the indices of their rows, shape (k,) each.
        """
        rows = np.argsort(-self.losses, kind="stable")[:k]
        return self.losses[rows], rows

    def plot_confusion_matrix(self) -> "Figure":
        """Plot the confusion matrix.

        Returns:
            The figure.
        """
        return plot_confusion_matrix(self.confusion_matrix(), self.classes)

    def plot_top_losses(self, k: int = 9) -> "Figure":
        """Plot the rows with the highest loss, each titled with its prediction and its loss.

        If few rows are wrong there are right ones among them: their title says so, with the probability p of the class.

        Args:
            k: How many.

        Returns:
            The figure.

        Raises:
            DataError: If the inputs are rows of a table, or are not in memory.
        """
        if self.x is None:
            raise DataError("the rows are a table's, or not in memory; plot_top_losses needs a data set of tensors")
        losses, rows = self.top_losses(k)
        titles = [f"{self._verdict(row)}\nloss {loss:.2f}" for loss, row in zip(losses, rows, strict=True)]
        return plot_examples(self.x[rows], titles)

    def _verdict(self, row: int) -> str:
        predicted, actual = self.predicted[row], self.targets[row]
        if predicted == actual:
            return f"{self.classes[actual]}, right, p {self.probs[row, actual]:.2f}"
        return f"{self.classes[predicted]}, not {self.classes[actual]}"

    def summary(self, k: int = 12) -> dict[str, Any]:
        """Summarize the interpretation for the record.

        Args:
            k: Number of highest losses.

        Returns:
            JSON values: classes, confusion matrix, most confused pairs, and the highest losses, with the inputs as
            images of 0 to 255 if they are images.
        """
        losses, rows = self.top_losses(k)
        return {
            "classes": [str(name) for name in self.classes],
            "confusion_matrix": self.confusion_matrix().tolist(),
            "most_confused": [[str(actual), str(predicted), n] for actual, predicted, n in self.most_confused()[:10]],
            "top_losses": [
                {
                    "row": int(row),
                    "loss": float(loss),
                    "actual": str(self.classes[self.targets[row]]),
                    "predicted": str(self.classes[self.predicted[row]]),
                    "image": _pixels(self.x[row]) if self.x is not None else None,
                }
                for loss, row in zip(losses, rows, strict=True)
            ],
        }


class RegressionInterpretation:
    """The errors of a regression on a data set.

    Args:
        predicted: Predicted values, shape (n,) or (n, columns), in the target's units.
        actual: Actual values, of as many numbers.
        names: Names of the target columns; by default they are numbered.

    Raises:
        DataError: If there are not as many predictions as actual values, or none.

    Example:
        >>> interp = RegressionInterpretation.from_learner(learn)
        >>> rows, columns = interp.top_errors(5)
    """

    def __init__(self, predicted: Array, actual: Array, names: list[str] | None = None) -> None:
        if predicted.size != actual.size or not actual.size:
            raise DataError(
                f"predicted has shape {predicted.shape}, actual {actual.shape}; expected equal sizes of at least 1"
            )
        self.actual: Array = actual.reshape(len(actual), -1).astype(np.float64)
        self.predicted: Array = predicted.reshape(self.actual.shape).astype(np.float64)
        columns = self.actual.shape[1]
        self.names = list(names) if names and len(names) == columns else [f"target {i}" for i in range(columns)]

    @classmethod
    def from_learner(cls, learn: LearnerLike, which: SetName = "valid") -> "RegressionInterpretation":
        """Predict a data set of a learner and interpret the predictions.

        Args:
            learn: The learner of a regression.
            which: "valid", "train", "test" or "fix".

        Returns:
            The interpretation.

        Raises:
            DataError: If there is no such set, or its targets are not values.
        """
        predicted, actual = _one_output(learn, which)
        if actual is None or not actual.is_floating_point():
            raise DataError(f"the {which} set has no values to compare predictions with")
        return cls(predicted.numpy(), actual.numpy(), learn.target.names if learn.target is not None else None)

    def top_errors(self, k: int = 12) -> tuple[Array, Array]:
        """Find the largest absolute errors, relative to the standard deviation of their target column.

        Args:
            k: How many.

        Returns:
            Row and column indices, largest error first, shape (k,) each. NaN counts as the largest.
        """
        spread = self.actual.std(0)
        errors = np.nan_to_num(np.abs(self.predicted - self.actual) / np.where(spread > 0, spread, 1), nan=np.inf)
        order = np.argsort(-errors, axis=None, kind="stable")[:k]
        rows, columns = np.unravel_index(order, errors.shape)
        return rows, columns

    def summary(self, k: int = 12) -> dict[str, Any]:
        """Summarize the interpretation for the record.

        Args:
            k: Number of largest errors.

        Returns:
            JSON values: target names, actual and predicted values of up to 500 evenly spaced rows, and the largest
            errors.
        """
        sample = np.unique(np.linspace(0, len(self.actual) - 1, _MAX_POINTS).round().astype(int))
        rows, columns = self.top_errors(k)
        return {
            "targets": self.names,
            "actual": self.actual[sample].T.tolist(),
            "predicted": self.predicted[sample].T.tolist(),
            "top_errors": [
                {
                    "row": int(row),
                    "target": self.names[column],
                    "actual": float(self.actual[row, column]),
                    "predicted": float(self.predicted[row, column]),
                }
                for row, column in zip(rows, columns, strict=True)
            ],
        }


def summarize_errors(learn: LearnerLike, which: SetName = "valid") -> dict[str, Any]:
    """Return the summary of a learner's errors on a data set, as JSON values for the record; it depends on the task."""
    if learn.data.task == "regression":
        return RegressionInterpretation.from_learner(learn, which).summary()
    if learn.data.task == "multilabel":
        probs, targets = _one_output(learn, which)
        assert targets is not None  # they decided the task
        return {"labels": label_counts(probs.numpy(), targets.numpy(), learn.classes or [])}
    return ClassificationInterpretation.from_learner(learn, which).summary()


def _one_output(learn: LearnerLike, which: SetName) -> "tuple[Tensor, Tensor | None]":
    """Return predictions and targets. Raises DataError if the model returns several outputs."""
    preds, targets = learn.get_preds(which)
    if isinstance(preds, list | tuple | dict) or not hasattr(preds, "numpy"):
        raise DataError(
            "the model returns several outputs; an interpretation needs one: let forward return one in eval"
        )
    return preds, targets


def label_counts(probs: Array, targets: Array, labels: list[Any]) -> list[dict[str, Any]]:
    """Count for each label the rows that have it, the rows predicted to have it (above 0.5), and both; (n, labels)."""
    is_predicted, is_actual = probs > 0.5, targets > 0.5
    counts = [is_actual.sum(0), is_predicted.sum(0), (is_predicted & is_actual).sum(0)]
    return [
        {"label": str(label), "actual": int(actual), "predicted": int(predicted), "right": int(right)}
        for label, actual, predicted, right in zip(labels, *counts, strict=True)
    ]


def plot_predictions(summary: dict[str, Any]) -> "Figure":
    """Plot predicted over actual values, one plot per target, from a `RegressionInterpretation.summary()`."""
    from matplotlib import pyplot as plt

    names = summary["targets"]
    figure, axes = plt.subplots(len(names), 1, figsize=(5, 4 * len(names)), squeeze=False, layout="constrained")
    for ax, name, actual, predicted in zip(axes[:, 0], names, summary["actual"], summary["predicted"], strict=True):
        ends = [min(actual), max(actual)]
        ax.plot(ends, ends, color="tab:red", linewidth=1)  # where predictions are exact
        ax.plot(actual, predicted, "o", markersize=3, alpha=0.5)
        ax.set(xlabel=f"{printable(name)}, actual", ylabel="predicted")
    return finish_figure(figure)


def _pixels(row: Array) -> list[Any] | None:
    image = as_image(row)
    if image is None:
        return None
    low, high = float(image.min()), float(image.max())
    return np.round((image - low) / (high - low or 1) * 255).astype(int).tolist()

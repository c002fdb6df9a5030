"""What a regression gets wrong: predicted over actual values, the rows with the largest errors."""

from typing import TYPE_CHECKING, Any

import numpy as np

from onecycle.errors import DataError
from onecycle.show.plots import as_image, plot_confusion_matrix, plot_examples, with_fonts_and_notebook_display

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]


class ClassificationInterpretation:
    """Mistakes of a classifier: `probs` (n, classes) and `targets` (n,), and the rows `x` to show them with."""

    def __init__(self, probs: Array, targets: Array, classes: list[Any], x: Array | None = None) -> None:
        if probs.ndim != 2 or probs.shape[0] != len(targets) or probs.shape[1] < int(targets.max()) + 1:
            raise DataError(
                f"probs has shape {probs.shape} for {len(targets)} targets up to {targets.max()}; "
                "expected a row for each target and a column for each class"
            )
        if not np.allclose(probs.sum(1), 1, atol=1e-3) or probs.min() < 0:
            raise DataError(
                "probs are no probabilities; expected rows of at least 0 that sum to 1, as cross-entropy gives"
            )
        self.probs, self.targets, self.x = probs, targets, x
        # a model may have outputs that no training row is labelled with
        self.classes = [*classes, *range(len(classes), probs.shape[1])]
        self.predicted: Array = probs.argmax(1)
        picked = probs[np.arange(len(targets)), targets]
        self.losses: Array = -np.log(np.maximum(picked, np.finfo(picked.dtype).tiny))

    @classmethod
    def from_learner(cls, learn: Any, which: str = "valid") -> "ClassificationInterpretation":
        """The mistakes of `learn` on its valid (or train, test) set."""
        probs, targets = learn.get_preds(which)
        if targets is None or targets.is_floating_point() or probs.ndim != 2 or probs.shape[1] < 2:
            raise DataError(f"the {which} set has no class labels; an interpretation compares predictions with them")
        tensors = getattr(learn.data.dl("fix" if which == "train" else which).dataset, "tensors", None)
        # the prepared numbers of a table's row are no picture of it
        x = tensors[0].cpu().numpy() if tensors and learn.features is None else None
        return cls(probs.numpy(), targets.numpy(), learn.classes or [], x)

    def confusion_matrix(self) -> Array:
        """Counts (classes, classes): row the actual class, column the predicted one."""
        counts = np.zeros((len(self.classes),) * 2, dtype=np.int64)
        np.add.at(counts, (self.targets, self.predicted), 1)
        return counts

    def most_confused(self, min_val: int = 1) -> list[tuple[Any, Any, int]]:
        """(actual, predicted, count) of the mistakes made at least `min_val` times, most frequent first."""
        counts = self.confusion_matrix()
        np.fill_diagonal(counts, 0)
        pairs = [(self.classes[i], self.classes[j], int(counts[i, j])) for i, j in np.argwhere(counts >= min_val)]
        return sorted(pairs, key=lambda pair: pair[2], reverse=True)

    def top_losses(self, k: int = 9) -> tuple[Array, Array]:
        """The `k` highest losses and the rows that have them."""
        rows = np.argsort(-self.losses, kind="stable")[:k]
        return self.losses[rows], rows

    def plot_confusion_matrix(self) -> Any:
        """Draw the confusion matrix; returns the figure."""
        return plot_confusion_matrix(self.confusion_matrix(), self.classes)

    def plot_top_losses(self, k: int = 9) -> Any:
        """Draw the rows with the highest loss, each titled with what was predicted and its loss; returns the figure.

        Where few are wrong, right ones are among them: those say so, and the probability `p` of their class.
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
        """All of this as plain numbers, for the record: images as rows of 0 to 255."""
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


def summarize_errors(learn: Any, which: str = "valid") -> dict[str, Any]:
    """What `learn` gets wrong on a set, as plain numbers for the record: of classes, of values or of labels."""
    if learn.data.task == "regression":
        return RegressionInterpretation.from_learner(learn, which).summary()
    if learn.data.task == "multilabel":
        probs, targets = learn.get_preds(which)
        return {"labels": label_counts(probs.numpy(), targets.numpy(), learn.classes or [])}
    return ClassificationInterpretation.from_learner(learn, which).summary()


def label_counts(probs: Array, targets: Array, labels: list[Any]) -> list[dict[str, Any]]:
    """For each label, in how many rows it is, is predicted (a probability above 0.5), and both; (n, labels) each."""
    found, there = probs > 0.5, targets > 0.5
    counts = [there.sum(0), found.sum(0), (found & there).sum(0)]
    return [
        {"label": str(label), "actual": int(actual), "predicted": int(predicted), "right": int(right)}
        for label, actual, predicted, right in zip(labels, *counts, strict=True)
    ]


def _pixels(row: Array) -> list[Any] | None:
    image = as_image(row)
    if image is None:
        return None
    low, high = float(image.min()), float(image.max())
    return np.round((image - low) / (high - low or 1) * 255).astype(int).tolist()


_POINTS = 500  # of the scatter plot, each of which is an element of the report


class RegressionInterpretation:
    """Errors of a regression: `predicted` and `actual` values (n,) or (n, columns), in the target's units."""

    def __init__(self, predicted: Array, actual: Array, names: list[str] | None = None) -> None:
        if predicted.size != actual.size or not actual.size:
            raise DataError(
                f"predicted has shape {predicted.shape}, actual {actual.shape}; expected as many numbers, at least one"
            )
        self.actual: Array = actual.reshape(len(actual), -1).astype(np.float64)
        self.predicted: Array = predicted.reshape(self.actual.shape).astype(np.float64)
        columns = self.actual.shape[1]
        self.names = list(names) if names and len(names) == columns else [f"target {i}" for i in range(columns)]

    @classmethod
    def from_learner(cls, learn: Any, which: str = "valid") -> "RegressionInterpretation":
        """The errors of `learn` on its valid (or train, test) set."""
        predicted, actual = learn.get_preds(which)
        if actual is None or not actual.is_floating_point():
            raise DataError(f"the {which} set has no values to compare predictions with")
        return cls(predicted.numpy(), actual.numpy(), learn.target.names if learn.target is not None else None)

    def top_errors(self, k: int = 12) -> tuple[Array, Array]:
        """The rows and columns of the `k` largest errors; of several columns, relative to their spread."""
        spread = self.actual.std(0)
        errors = np.nan_to_num(np.abs(self.predicted - self.actual) / np.where(spread > 0, spread, 1), nan=np.inf)
        order = np.argsort(-errors, axis=None, kind="stable")[:k]
        rows, columns = np.unravel_index(order, errors.shape)
        return rows, columns

    def summary(self, k: int = 12) -> dict[str, Any]:
        """All of this as plain numbers, for the record: of many rows, some evenly spread ones."""
        some = np.unique(np.linspace(0, len(self.actual) - 1, _POINTS).round().astype(int))
        rows, columns = self.top_errors(k)
        return {
            "targets": self.names,
            "actual": self.actual[some].T.tolist(),
            "predicted": self.predicted[some].T.tolist(),
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


def plot_predictions(mistakes: dict[str, Any]) -> "Figure":
    """Predicted over actual values, one row a target, from what `summary` said; on the line they are right."""
    from matplotlib import pyplot as plt

    names = mistakes["targets"]
    figure, axes = plt.subplots(len(names), 1, figsize=(5, 4 * len(names)), squeeze=False, layout="constrained")
    for ax, name, actual, predicted in zip(axes[:, 0], names, mistakes["actual"], mistakes["predicted"], strict=True):
        ends = [min(actual), max(actual)]
        ax.plot(ends, ends, color="tab:red", linewidth=1)
        ax.plot(actual, predicted, "o", markersize=3, alpha=0.5)
        ax.set_xlabel(f"{name}, actual")
        ax.set_ylabel("predicted")
    return with_fonts_and_notebook_display(figure)

"""What a regression gets wrong: predicted over actual values, the rows with the largest errors."""

from typing import TYPE_CHECKING, Any

import numpy as np

from onecycle.core.errors import DataError
from onecycle.show.plots import finished

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
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
    return finished(figure)

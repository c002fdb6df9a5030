"""Draw docs/lesson.png, the figure in the README: the lesson's run on MNIST."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import onecycle


def main() -> None:
    """Train with a fixed seed; draw the LR finder, the cycle, the losses and the largest errors side by side."""
    torch.manual_seed(1)
    learn = onecycle.Learner(onecycle.mnist(seed=1), onecycle.MLP(784, 50, 10), metrics=onecycle.accuracy, silent=True)
    result = learn.lr_find()
    learn.fit_one_cycle(1, 1e-2)
    record = learn.recorder.record
    interpretation = onecycle.ClassificationInterpretation.from_learner(learn)

    plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
    figure, axes = plt.subplots(1, 4, figsize=(13, 3), layout="constrained", dpi=110)
    axes[0].plot(result.lrs[10:-5], result.losses[10:-5])
    suggested = int(np.argmin(np.abs(np.log(result.lrs) - np.log(result.suggestion))))
    axes[0].plot(result.lrs[suggested], result.losses[suggested], "o", color="tab:red")
    axes[0].set(xscale="log", xlabel="learning rate", title="1  find the learning rate")
    axes[1].plot(record.lrs)
    axes[1].set(xlabel="batch", title="2  run one cycle")
    axes[1].set_ylabel("learning rate", color="tab:blue")
    right = axes[1].twinx()
    right.plot([mom or 0 for mom in record.moms], color="tab:orange")
    right.set_ylabel("momentum", color="tab:orange")
    axes[2].plot(record.losses, label="training")
    axes[2].plot(record.nb_batches, record.val_losses, "o", color="tab:orange", label="validation")
    accuracy = record.metrics[-1][0]
    axes[2].set(ylim=(0, 1), xlabel="batch", title=f"3  loss; accuracy {accuracy:.4f}")
    axes[2].legend(frameon=False)
    assert interpretation.x is not None
    _, rows = interpretation.top_losses(8)
    grid = [[interpretation.x[row].reshape(28, 28) for row in rows[i : i + 4]] for i in (0, 4)]
    axes[3].imshow(np.block(grid), cmap="gray_r")
    axes[3].set_axis_off()
    axes[3].set_title("4  what it got most wrong")
    figure.savefig(Path(__file__).with_name("lesson.png"))


if __name__ == "__main__":
    main()

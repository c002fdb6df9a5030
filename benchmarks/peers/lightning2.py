"""Lightning 2 with bar, checkpoints and logger off."""

import logging
import warnings

import torch
from lightning_utilities.core.imports import RequirementCache
from torch.nn import functional as F
from torch.utils.data import DataLoader
from workloads import Job

from peers.schedule import BETAS, WD
from peers.torch_parts import datasets, network

_check = RequirementCache._check_requirement


def _check_but_vision(self: RequirementCache) -> None:
    """torchvision, there because fastai asks for it, may not import beside torch's CPU build: it counts as absent."""
    if str(self.requirement).startswith("torchvision"):
        self.available, self.message = False, "left out"
    else:
        _check(self)


RequirementCache._check_requirement = _check_but_vision

import lightning  # noqa: E402 -- only now

warnings.filterwarnings("ignore", module="lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(lightning.LightningModule):
    """The network with its loss, optimizer and accuracy."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.model, self.lr, self.steps = network(job.workload), job.workload.lr, job.steps

    def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        """The loss of a batch."""
        x, y = batch
        return F.cross_entropy(self.model(x), y)

    def validation_step(self, batch: list[torch.Tensor], _index: int) -> None:
        """Log loss and accuracy."""
        x, y = batch
        out = self.model(x)
        self.log("loss", F.cross_entropy(out, y))
        self.log("accuracy", (out.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> dict[str, object]:
        """AdamW and one cycle, stepped each batch."""
        opt = torch.optim.AdamW(self.parameters(), self.lr, betas=BETAS, weight_decay=WD)
        schedule = torch.optim.lr_scheduler.OneCycleLR(opt, self.lr, total_steps=self.steps + 1)
        return {"optimizer": opt, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Peer:
    """Trainer.fit."""

    name = "Lightning"
    package = "lightning"
    note = ""

    def __init__(self, job: Job) -> None:
        train, valid = datasets(job)
        self.train = DataLoader(train, job.bs, shuffle=True, drop_last=True)
        self.valid = DataLoader(valid, job.bs)
        self.module = Module(job)

    def epoch(self) -> float | None:
        """A new trainer for one epoch: fitting an old one again would bring back its old schedule."""
        trainer = lightning.Trainer(
            max_epochs=1,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            logger=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(self.module, self.train, self.valid)
        return float(trainer.callback_metrics["accuracy"])

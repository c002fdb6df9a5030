"""Keras 3 on JAX."""

import os

os.environ["KERAS_BACKEND"] = "jax"

import jax
import keras
from workloads import Job

from peers import on_device
from peers.schedule import BETAS, WD


class Peer:
    """Model.fit with validation data."""

    name = "Keras 3 on JAX"
    package = "keras"

    def __init__(self, job: Job) -> None:
        workload, where = job.workload, on_device(jax.default_backend())
        self.note = f"the short last batch kept{where and ', '}{where}"
        layers: list[keras.Layer] = [keras.Input((workload.sizes[0],))]
        if workload.channels:
            layers.append(keras.layers.Reshape((28, 28, 1)))
            layers += [
                keras.layers.Conv2D(c, 3, strides=2, padding="same", activation="relu") for c in workload.channels
            ]
            layers.append(keras.layers.Flatten())
        layers += [keras.layers.Dense(size, activation="relu") for size in workload.sizes[1:-1]]
        layers.append(keras.layers.Dense(workload.sizes[-1]))
        self.model = keras.Sequential(layers)
        warm = max(1, int(job.steps * 0.3))
        lr = keras.optimizers.schedules.CosineDecay(
            workload.lr / 25, max(1, job.steps - warm), warmup_target=workload.lr, warmup_steps=warm
        )
        self.model.compile(
            keras.optimizers.AdamW(lr, weight_decay=WD, beta_1=BETAS[0], beta_2=BETAS[1]),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        self.job = job

    def epoch(self) -> float | None:
        """One cycle of one epoch."""
        self.model.optimizer.iterations.assign(0)  # the schedule from its start
        job = self.job
        history = self.model.fit(job.x, job.y, job.bs, validation_data=(job.xv, job.yv), verbose=0)
        return float(history.history["val_accuracy"][-1])

"""scikit-learn's MLPClassifier."""

from sklearn.neural_network import MLPClassifier
from workloads import Job

from peers import Unsupported


class Peer:
    """MLPClassifier.partial_fit, one pass over the rows, and score."""

    name = "sklearn MLPClassifier"
    package = "scikit-learn"
    note = "Adam at a constant third of the lr, the short last batch kept, no validation loss, CPU only"

    def __init__(self, job: Job) -> None:
        if job.workload.channels:
            raise Unsupported("has no conv nets")
        self.job = job
        self.model = MLPClassifier(
            job.workload.sizes[1:-1], batch_size=job.bs, learning_rate_init=job.workload.lr / 3, beta_2=0.99
        )
        self.classes = list(range(job.workload.sizes[-1]))

    def epoch(self) -> float | None:
        """One pass, then the accuracy."""
        self.model.partial_fit(self.job.x, self.job.y, classes=self.classes)
        return float(self.model.score(self.job.xv, self.job.yv))

"""The report is one whole HTML file, whatever the record holds or lacks."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from onecycle.core.record import Record
from onecycle.errors import OutputError
from onecycle.show.interpret import ClassificationInterpretation, RegressionInterpretation, label_counts
from onecycle.show.report import drawable, render_report, write_report

VOID = {"meta", "img", "br"}
NAN = float("nan")


class Page(HTMLParser):
    """Checks that tags are closed in order; collects what it sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.note(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data.strip())

    def note(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name.startswith("on") for name, _ in attrs)
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]


def page_of(record: Record) -> Page:
    """The parsed report; checked to need nothing outside itself."""
    html = render_report(record)
    page = Page(html)
    assert "script" not in page.tags
    assert "http" not in html
    assert not re.search(r"url\((?!#)|@import", html)
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link.startswith("data:image/png;base64,") or link.removeprefix("#") in page.ids
    for target in re.findall(r"url\(#([^)]*)\)", html):
        assert target in page.ids
    return page


def mistakes(names: list[str], images: bool = True) -> dict[str, object]:
    random = np.random.default_rng(0)
    probs = random.dirichlet(np.ones(len(names)), 50)
    x = random.random((50, 64 if images else 7))
    return ClassificationInterpretation(probs, np.arange(50) % len(names), [*names], x).summary()


def full() -> Record:
    steps = 40
    lrs = np.geomspace(1e-7, 1, 60)
    return Record(
        lrs=[0.01 * (i + 1) / steps for i in range(steps)],
        moms=[0.9] * steps,
        batch_losses=[2 / (1 + i) for i in range(steps)],
        losses=[2 / (1 + i) for i in range(steps)],
        nb_batches=[20, 20],
        epochs=[0, 1],
        val_losses=[0.4, 0.3],
        metrics=[[0.8, 0.1], [0.9123456, 0.05]],
        seconds=[1.2, 1.1],
        metric_names=["accuracy", "error_rate"],
        settings={"data": "toy", "model": "MLP", "epochs": 2, "wd": 0.01, "true_wd": True, "seed": None},
        versions={"onecycle": "0.1", "torch": "2.13", "device": "cpu"},
        lr_curve={"lrs": lrs.tolist(), "losses": (1 + np.sin(np.linspace(0, 6, 60))).tolist(), "suggestion": 1e-3},
        mistakes=mistakes([*"abcd"]),
    )


@pytest.mark.slow
def test_everything_is_there(tmp_path: Path) -> None:
    record = full()
    write_report(record, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_report(record)
    page = page_of(record)
    assert page.tags.count("svg") == 4
    assert page.tags.count("img") == 12
    for word in ("MLP on toy", "0.912346", "Confusion matrix", "Most confused", "Highest losses", "true_wd", "2.13"):
        assert any(word in text for text in page.words), word
    assert set(drawable(record)) == {"lr_find", "lr", "losses", "metrics", "confusion"}


@pytest.mark.slow
def test_it_is_made_from_the_json_alone(tmp_path: Path) -> None:
    full().save(tmp_path / "record.json")
    assert render_report(Record.load(tmp_path / "record.json")) == render_report(full())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "plots"),
    [
        ({"lr_curve": None}, 3),
        ({"lr_curve": {"lrs": [1e-3] * 5, "losses": [1.0] * 5, "suggestion": None}}, 3),
        ({"mistakes": None}, 4),
        ({"val_losses": [None, None], "metrics": [[None, None], [None, None]]}, 3),
        ({"metric_names": [], "metrics": [[], []]}, 3),
        ({"moms": [None] * 40}, 4),
        ({"stopped": "interrupted"}, 4),
        ({"epochs": [], "nb_batches": [], "val_losses": [], "metrics": [], "seconds": [], "stopped": "interrupted"}, 3),
        ({"losses": [NAN] * 40, "val_losses": [NAN, float("inf")], "metrics": [[NAN, NAN], [NAN, NAN]]}, 4),
        ({"lr_curve": {"lrs": [10.0**-i for i in range(40, 0, -1)], "losses": [NAN] * 40, "suggestion": None}}, 4),
        ({"settings": {}, "versions": {}}, 4),
        ({"mistakes": mistakes([str(i) for i in range(50)])}, 4),
        ({"mistakes": mistakes([*"ab"], images=False)}, 4),
    ],
)
def test_partial_records(changed: dict[str, object], plots: int) -> None:
    assert page_of(replace(full(), **changed)).tags.count("svg") == plots


def test_the_loss_plot_names_only_what_it_shows() -> None:
    unfinished = replace(full(), epochs=[], nb_batches=[], val_losses=[], metrics=[], seconds=[], stopped="interrupted")
    for record, names in ((full(), ["Train", "Validation"]), (unfinished, ["Train"])):
        [ax] = drawable(record)["losses"]().axes
        assert [text.get_text() for text in ax.get_legend().get_texts()] == names


@pytest.mark.slow
def test_a_stopped_run_says_how_it_ended() -> None:
    scores = {"valid_loss when stopped": 0.25, "accuracy when stopped": None}
    words = page_of(replace(full(), stopped="interrupted", settings={"max_lr": 1.0, **scores})).words
    assert words.count("valid_loss when stopped") == 1  # a tile, not a setting
    assert "0.2500" in words
    assert "accuracy when stopped" not in words
    assert "highest learning rate so far" in words
    assert "peak learning rate" in page_of(full()).words


def test_metrics_of_one_epoch_have_their_value_beside_the_dot() -> None:
    one = {"epochs": [0], "nb_batches": [40], "val_losses": [0.4], "seconds": [1.0]}
    record = replace(full(), **one, metrics=[[0.98, 7.5]])
    share, other = drawable(record)["metrics"]().axes
    assert [text.get_text() for ax in (share, other) for text in ax.texts] == ["0.9800", "7.5000"]
    assert 1 < share.get_ylim()[1] < 1.01  # the dot's room, no more
    assert other.get_ylim()[1] > 7.5
    assert "0.9800" in page_of(record).words
    nan = drawable(replace(record, metrics=[[NAN, 0.0]]))["metrics"]().axes
    assert [text.get_text() for ax in nan for text in ax.texts] == ["0.0000"]
    assert -0.01 < nan[1].get_ylim()[0] < 0


def test_a_right_row_among_the_highest_losses_is_not_called_a_mistake() -> None:
    probs = np.array([[0.9, 0.1], [0.19, 0.81]])
    found = ClassificationInterpretation(probs, np.array([1, 1]), ["cat", "dog"]).summary()
    words = page_of(replace(full(), mistakes=found)).words
    assert words.index("is dog, predicted cat") < words.index("dog, right, p 0.81")


@pytest.mark.slow
def test_the_title_has_the_folders_name_also_where_the_run_was_resumed(tmp_path: Path) -> None:
    absolute = str(tmp_path / "pets")
    words = page_of(replace(full(), settings={"data": absolute, "model": "MLP"})).words
    assert words[: words.index("MLP on pets")].count("onecycle: pets") == 1
    assert absolute in words  # a setting
    assert "MLP on data/pets" in page_of(replace(full(), settings={"data": "data/pets", "model": "MLP"})).words
    assert "MLP" in page_of(replace(full(), settings={"model": "MLP"})).words


def test_an_empty_record() -> None:
    page = page_of(Record())
    assert "svg" not in page.tags
    assert "No epoch was completed." in page.words


def test_names_are_escaped() -> None:
    evil = '<script>alert("x")</script>'
    record = replace(
        full(),
        mistakes=mistakes([evil, "' onload='x", "&amp;", "$\\frac$"]),
        metric_names=[evil, "cost in $ and $_{"],
        settings={"data": evil, evil: evil, "model": evil},
        versions={evil: evil},
        stopped=evil,
    )
    page = page_of(record)
    assert evil in page.words
    assert "&amp;" in page.words


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/report\.html: cannot be written"):
        write_report(Record(), tmp_path / "file" / "report.html")


def regression() -> dict[str, object]:
    random = np.random.default_rng(0)
    actual = random.normal(1000, 100, 60)
    return RegressionInterpretation(actual + random.normal(size=60), actual, ["price in $"]).summary()


def test_a_regression() -> None:
    record = replace(
        full(), mistakes=regression(), metric_names=["rmse", "r2_score"], metrics=[[1e7, 0.5], [2e6, 1e-5]]
    )
    page = page_of(record)
    assert page.tags.count("svg") == 5
    for word in ("Largest errors", "Predicted over actual values of the validation set", "price in $, actual"):
        assert any(word in text for text in page.words), word
    assert "Confusion matrix" not in page.words
    assert "Highest losses" not in page.words
    assert "2e+06" in page.words  # four decimals would say too much, or nothing
    assert "1e-05" in page.words
    assert set(drawable(record)) == {"lr_find", "lr", "losses", "metrics", "predictions"}
    [ax] = drawable(record)["predictions"]().axes
    assert [len(line.get_xdata()) for line in ax.lines] == [2, 60]


@pytest.mark.slow
def test_several_targets() -> None:
    random = np.random.default_rng(0)
    actual = random.normal(size=(60, 3))
    several = RegressionInterpretation(actual * 1.1, actual, ["a", "b", "c"]).summary()
    record = replace(full(), mistakes=several)
    assert len(drawable(record)["predictions"]().axes) == 3
    assert any(re.fullmatch(r"\d+, [abc]", text) for text in page_of(record).words)
    many = RegressionInterpretation(np.ones((5, 20)), np.ones((5, 20))).summary()
    assert "predictions" not in drawable(replace(full(), mistakes=many))
    assert "Largest errors" in page_of(replace(full(), mistakes=many)).words


def test_labels() -> None:
    probs, there = np.array([[0.9, 0.1, 0.2], [0.6, 0.4, 0.1]]), np.array([[1, 0, 0], [0, 1, 0]])
    counts = label_counts(probs, there, ["<a>", "b", "c"])
    assert counts[0] == {"label": "<a>", "actual": 1, "predicted": 2, "right": 1}
    words = page_of(replace(full(), mistakes={"labels": counts})).words
    at = words.index("<a>")
    assert [word for word in words[at:] if word][:6] == ["<a>", "1", "2", "1", "0.5000", "1.0000"]
    assert [word for word in words[words.index("b") :] if word][:6] == ["b", "1", "0", "0", "–", "0.0000"]


def test_many_classes_have_no_plot_that_nobody_can_read() -> None:
    assert "confusion" in drawable(replace(full(), mistakes=mistakes([str(i) for i in range(40)])))
    assert "confusion" not in drawable(replace(full(), mistakes=mistakes([str(i) for i in range(41)])))

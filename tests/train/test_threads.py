"""The CPU threads of a fit: the rule, what is recorded, and that torch's number is put back."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import onecycle.train.threads as threads_module
from conftest import Net, seeded, toy_arrays
from onecycle import Callback, DataBunch, Learner, accuracy
from onecycle.errors import SettingError
from onecycle.train.fit import Fit
from onecycle.train.step import plain_forward
from onecycle.train.threads import WORK_PER_THREAD, Work, weigh

WIDE = 8192  # its layer is worth several threads at batch 256


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Torch has four threads, and the machine as many cores."""
    monkeypatch.setattr(threads_module, "usable_cores", lambda: 4)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(1)


class Sees(Callback):
    """Notes how many threads torch has at each step, and acts at one of them."""

    def __init__(self, act: Callable[[], Any] | None = None, at: int = 2) -> None:
        self.seen: list[int] = []
        self._act, self._at = act, at

    def resume_settings(self) -> dict[str, Any]:
        return {}

    def on_batch_end(self, fit: Fit) -> None:
        self.seen.append(torch.get_num_threads())
        if self._act is not None and fit.iteration == self._at:
            self._act()


def small(**settings: Any) -> Learner:
    data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=1)
    return Learner(data, seeded(Net()), metrics=accuracy, silent=True, **settings)


def wide(**settings: Any) -> Learner:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(512, 64, generator=generator), torch.arange(512) % 4
    data = DataBunch.create((x, y), bs=256, seed=1, device="cpu")
    return Learner(
        data, seeded(nn.Sequential(nn.Linear(64, WIDE), nn.ReLU(), nn.Linear(WIDE, 4))), silent=True, **settings
    )


def weights(learn: Learner) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in learn.model.parameters()]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


# --- the rule ---------------------------------------------------------------------------------------------------------


def work_of(function: Callable[[], Any]) -> Work:
    with torch.no_grad(), Work() as work:
        function()
    return work


def test_the_work_of_products_is_counted_in_floating_point_operations():
    a, b, c = torch.rand(3, 5), torch.rand(5, 7), torch.rand(7)
    assert work_of(lambda: a @ b).total == 2 * 3 * 5 * 7
    assert work_of(lambda: torch.addmm(c, a, b)).total == 2 * 3 * 5 * 7
    assert work_of(lambda: torch.bmm(torch.ones(2, 3, 5), torch.ones(2, 5, 7)) is None).total >= 2 * 2 * 3 * 5 * 7
    x = torch.rand(2, 4, 9, 9)
    assert work_of(lambda: nn.functional.conv2d(x, torch.ones(6, 4, 3, 3))).total >= 2 * (2 * 6 * 7 * 7) * (4 * 3 * 3)
    conv = nn.ConvTranspose2d(4, 6, 3).requires_grad_(False)
    assert work_of(lambda: conv(x)).total == 2 * (2 * 4 * 9 * 9) * (6 * 3 * 3)
    grouped = nn.Conv2d(4, 8, 3, groups=2).requires_grad_(False)
    assert work_of(lambda: grouped(x)).total == 2 * (2 * 8 * 7 * 7) * (2 * 3 * 3)


def test_views_are_no_work_and_other_operators_count_what_they_write():
    x = torch.rand(6, 8)
    assert work_of(lambda: x.t().view(48) if x.t().is_contiguous() else x.view(2, 24)[0].unsqueeze(0)).total == 0
    assert work_of(lambda: x + 1).total == work_of(lambda: x.relu()).total == threads_module._PER_ELEMENT * 48
    assert work_of(lambda: x.add_(1)).total == threads_module._PER_ELEMENT * 48


def test_the_steps_of_a_recurrent_layer_are_small_however_long_the_sequence():
    lstm = nn.LSTM(8, 16, batch_first=True).requires_grad_(False)
    short, long = (weigh(lstm, lambda model, x: model(x), torch.rand(4, steps, 8)) for steps in (5, 500))
    assert short is not None
    assert long is not None
    assert long.total > 50 * short.total
    product = 2 * 4 * (4 * 16 * 8 + 4 * 16 * 16)
    assert short.typical < 5 * product
    assert long.typical < 100 * short.typical


def test_one_large_operator_counts_more_than_many_small_ones():
    small_, large = torch.rand(4, 4), torch.rand(512, 512)
    work = work_of(lambda: [large @ large, *(small_ @ small_ for _ in range(100))])
    assert work.typical == 2 * 512**3


def test_many_small_operators_count_more_than_one_large_one():
    small_, large = torch.rand(64, 64), torch.rand(512, 512)
    work = work_of(lambda: [large @ large, *(small_ @ small_ for _ in range(600))])
    assert work.typical == 2 * 64**3


@pytest.mark.parametrize(
    ("typical", "most", "expected"), [(0.5, 4, 1), (1.0, 4, 1), (2.5, 4, 2), (99, 4, 4), (99, 1, 1)]
)
def test_each_thread_must_have_enough_to_do(typical: float, most: int, expected: int):
    work = Work()
    work.total = 1.0
    work.by_size[typical * WORK_PER_THREAD] = 1.0
    assert threads_module.number_for(work, most) == expected
    assert threads_module.number_for(None, most) == most


def test_weighing_leaves_no_trace():
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.calls = nn.BatchNorm1d(20), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            x.add_(1)
            return nn.functional.dropout(self.bn(x))

    model, x = Counts().eval(), torch.rand(8, 20)
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    original = x.clone()
    assert weigh(model, plain_forward, x) is not None
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(random, torch.get_rng_state())
    assert torch.equal(x, original)
    assert model.calls == 0
    assert not model.bn.training


def test_weighing_leaves_no_trace_in_the_batch_whatever_it_is():
    class Graph:
        def __init__(self, x: Tensor) -> None:
            self.x, self.layers = x, 0

    def forward(model: nn.Module, graph: Graph) -> Tensor:
        graph.layers += 1
        return model(graph.x.mul_(2))

    graph = Graph(torch.ones(8, 20))
    assert weigh(nn.Linear(20, 4), forward, graph) is not None
    assert graph.layers == 0
    assert torch.equal(graph.x, torch.ones(8, 20))
    scaled, rows = torch.ones(8, 20, requires_grad=True) * 2, {"rows": iter([torch.ones(8, 20)])}
    assert weigh(nn.Linear(20, 4), plain_forward, scaled) is not None
    assert weigh(nn.Linear(20, 4), lambda model, xb: model(next(xb["rows"])), rows) is not None
    assert len([*rows["rows"]]) == 1


def test_a_model_that_needs_gradients_is_weighed():
    class Slope(Net):
        def forward(self, x: Tensor) -> Tensor:
            x = x.requires_grad_()
            return super().forward(x) + torch.autograd.grad(super().forward(x).sum(), x, create_graph=True)[0][:, :1]

    data = DataBunch(DataLoader(TensorDataset(*toy_arrays()), 16))
    learn = Learner(data, seeded(Slope()), silent=True)
    learn.fit(1, 1e-2)
    assert learn.recorder.record.settings["threads"] == 1


@pytest.mark.filterwarnings("error")
def test_reentrant_checkpoints_do_not_warn_when_they_are_weighed():
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(20, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return checkpoint(self.second, self.first(x), use_reentrant=True)  # pyright: ignore[reportReturnType]

    assert weigh(Checkpointed(), plain_forward, torch.rand(8, 20)) is not None


@pytest.mark.parametrize(("large", "seen"), [(1e12, [1, 1]), (1.0, [1, 4])])
def test_only_a_large_model_is_weighed_with_all_threads(monkeypatch: pytest.MonkeyPatch, large: float, seen: list[int]):
    found = SimpleQueue[int]()  # which is not restored

    class Looks(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            found.put(torch.get_num_threads())
            return super().forward(input)

    monkeypatch.setattr(threads_module, "_LARGE", large)
    assert weigh(nn.Sequential(Looks(20, 20), Looks(20, 20)), plain_forward, torch.rand(8, 20)) is not None
    assert [found.get() for _ in range(found.qsize())] == seen
    assert torch.get_num_threads() == 4


def test_a_model_that_cannot_be_tried_has_all_threads():
    learn = small()
    learn.model.rows = iter(range(1000))  # whose state cannot be restored
    learn.fit(1, 1e-2)
    assert learn.recorder.record.settings["threads"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("way", ["function", "method"])
def test_a_model_that_torch_compiles_is_not_compiled_for_this(way: str):
    learn, compiled = small(), []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(torch.is_grad_enabled())
        return graph.forward

    if way == "function":
        learn.model = torch.compile(learn.model, backend=backend)
    else:
        learn.model.compile(backend=backend)
    assert weigh(learn.model, plain_forward, torch.rand(16, 20)) is None
    assert compiled == []


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch.compile raises some
@pytest.mark.parametrize("is_in_memory", [True, False])
def test_a_function_that_torch_compiles_is_compiled_by_the_first_step_as_ever(is_in_memory: bool):
    compiled: list[bool] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(torch.is_grad_enabled())
        return graph.forward

    activation = torch.compile(lambda x: torch.relu(x) * 2, backend=backend)

    class Activated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(20, 4)

        def forward(self, x: Tensor) -> Tensor:
            return activation(self.layer(x))

    data = (
        DataBunch.create(toy_arrays(), bs=16, seed=1)
        if is_in_memory
        else DataBunch(DataLoader(TensorDataset(*toy_arrays()), 16))
    )
    learn = Learner(data, seeded(Activated()), silent=True, engine="eager")
    learn.fit(1, 1e-2)
    assert compiled[:1] == [True]
    assert learn.recorder.record.settings["threads"] == 1


@pytest.mark.slow
def test_weighing_in_several_threads_of_python_leaves_torch_compiles_setting():
    function = torch.compile(lambda x: x * 2, backend=lambda graph, inputs: graph.forward)

    class Doubles(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            if threading.current_thread() is second:
                both.set()
                go_on.wait(60)
            else:
                second.start()
                both.wait(60)
            return function(super().forward(input))

    compiled, both, go_on = sys.modules["torch._dynamo"].eval_frame, threading.Event(), threading.Event()
    before, arguments = compiled._stance, (plain_forward, torch.rand(8, 20))
    second = threading.Thread(target=weigh, args=(Doubles(20, 4), *arguments))
    assert weigh(Doubles(20, 4), *arguments) is not None
    go_on.set()  # the second ends after the first
    second.join()
    assert compiled._stance is before


# --- in a fit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["eager", "fast"])
def test_a_small_network_has_one_thread_and_a_large_one_several(engine: str):
    for learn, number in ((small(engine=engine), 1), (wide(engine=engine), 4)):
        sees = Sees()
        learn.fit(2, 1e-2, callbacks=sees)
        assert {*sees.seen} == {number}
        assert learn.recorder.record.settings["threads"] == number
        assert torch.get_num_threads() == 4


def test_torchs_own_number_is_the_most():
    torch.set_num_threads(2)
    learn = wide()
    learn.fit(1, 1e-2)
    assert learn.recorder.record.settings["threads"] == 2


def test_a_number_that_is_asked_for_is_taken():
    sees, learn = Sees(), small(threads=3)
    learn.fit(1, 1e-2, callbacks=sees)
    assert {*sees.seen} == {3}
    assert learn.recorder.record.settings["threads"] == 3
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "two", None])
def test_what_is_no_number_of_threads_is_refused(threads: Any):
    with pytest.raises(SettingError, match=r'threads is .*; expected ("auto" or )?a (whole )?number of at least 1'):
        small(threads=threads)


def test_the_numbers_are_those_of_as_many_threads():
    results = []
    for threads in ("auto", 4, 1):
        learn = wide(threads=threads)
        learn.fit(3, 1e-2)
        results.append(weights(learn))
    assert same(results[0], results[1])
    alone = small(threads=1)
    alone.fit_one_cycle(3, 1e-2)
    learn = small()
    learn.fit_one_cycle(3, 1e-2)
    assert same(weights(alone), weights(learn))


def test_a_loader_of_torch_is_known_at_its_first_batch():
    x, y = toy_arrays()
    sees, learn = Sees(), Learner(DataBunch(DataLoader(TensorDataset(x, y), 16)), seeded(Net()), silent=True)
    learn.fit(1, 1e-2, callbacks=sees)
    assert {*sees.seen} == {1}
    assert learn.recorder.record.settings["threads"] == 1


@pytest.mark.parametrize("model", ["small", "wide"])
def test_the_first_batch_of_a_loader_of_torch_is_made_with_one_thread(model: str):
    made: list[int] = []

    class Rows(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            made.append(torch.get_num_threads())
            return super().__getitem__(index)

    x, y = torch.rand(512, 64), torch.arange(512) % 4
    net = nn.Linear(64, 4) if model == "small" else wide().model
    learn = Learner(DataBunch(DataLoader(Rows(x, y), 256)), net, silent=True)
    made.clear()  # a row was looked at
    learn.fit(1, 1e-2)
    assert {*made[-512:-256]} == {1}
    assert made[-1] == learn.recorder.record.settings["threads"] == (1 if model == "small" else 4)
    assert torch.get_num_threads() == 4


def test_torchs_number_is_put_back_if_the_first_batch_cannot_be_loaded():
    class Rows(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            if index:  # the first row is looked at before the fit
                raise KeyError("no such row")
            return super().__getitem__(index)

    learn = Learner(DataBunch(DataLoader(Rows(*toy_arrays()), 16)), seeded(Net()), silent=True)
    with pytest.raises(KeyError, match="no such row"):
        learn.fit(1, 1e-2)
    assert torch.get_num_threads() == 4


def test_the_finder_and_validation_follow_the_rule():
    seen = SimpleQueue[int]()  # which the finder does not restore

    class Looks(Net):
        def forward(self, x: Tensor) -> Tensor:
            seen.put(torch.get_num_threads())
            return super().forward(x)

    data = DataBunch.create(toy_arrays(), toy_arrays(50, seed=1), bs=16, seed=1)
    learn = Learner(data, seeded(Looks()), silent=True, engine="eager", callbacks=Sees())
    learn.lr_find(num_it=5)
    assert [seen.get() for _ in range(seen.qsize())][-5:] == [1] * 5
    learn.fit(1, 1e-2)
    [seen.get() for _ in range(seen.qsize())]
    row = learn.recorder.record.val_losses[-1]
    assert learn.validate()[0] == row
    learn.get_preds()
    assert {seen.get() for _ in range(seen.qsize())} == {1}
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_torchs_number_is_put_back_after_an_error(error: type[BaseException]):
    def act() -> None:
        raise error("at this step")

    learn = small()
    with pytest.raises(error, match="at this step"):
        learn.fit(2, 1e-2, callbacks=Sees(act))
    assert torch.get_num_threads() == 4


def test_torchs_number_is_put_back_after_ctrl_c():
    learn = small()
    learn.fit(2, 1e-2, callbacks=Sees(lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert learn.recorder.record.stopped
    assert torch.get_num_threads() == 4


def test_what_the_user_sets_during_the_fit_stays():
    learn = small()
    sees = Sees(lambda: torch.set_num_threads(3))
    learn.fit(2, 1e-2, callbacks=sees)
    assert sees.seen[-1] == torch.get_num_threads() == 3


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin"])
@pytest.mark.parametrize("threads", ["auto", 2])
def test_what_the_user_sets_before_the_first_batch_stays(hook: str, threads: Any):
    def sets(self: Sees, fit: Fit) -> None:
        torch.set_num_threads(3)

    sees, learn = type("Sets", (Sees,), {hook: sets})(), small(threads=threads)
    learn.fit(1, 1e-2, callbacks=sees)
    assert {*sees.seen} == {3}
    assert torch.get_num_threads() == 3
    if threads == "auto":
        assert learn.recorder.record.settings["threads"] == 3


def test_validation_in_a_callback_has_the_threads_of_its_fit():
    seen, learn = list[int](), small()
    learn.fit(1, 1e-2)
    learn.threads = 3
    learn.metrics = [lambda preds, target: seen.append(torch.get_num_threads()) or torch.tensor(0.0)]
    learn.fit(1, 1e-2, callbacks=Sees(lambda: (seen.clear(), learn.validate(), seen.append(0)), at=7))
    assert {*seen[: seen.index(0)]} == {3}


def test_a_fit_within_a_fit_has_its_own_number():
    inner = Sees()
    outer, large = Sees(lambda: wide().fit(1, 1e-2, callbacks=inner)), small()
    large.fit(2, 1e-2, callbacks=outer)
    assert {*inner.seen} == {4}
    assert {*outer.seen} == {1}
    assert torch.get_num_threads() == 4


def test_fits_in_several_threads_of_python_have_their_own_numbers():
    inside, ended, seen = threading.Barrier(4, timeout=60), threading.Barrier(4, timeout=60), dict[int, list[int]]()
    # made before the fits: weights are drawn from the generator that they share
    learners = {number: small(threads=number) if number < 4 else small() for number in (1, 2, 3, 4)}

    def train(number: int) -> None:
        sees, learn = Sees(inside.wait), learners[number]  # all are under way at once
        learn.fit(4, 1e-2, callbacks=sees)
        seen[number] = [*sees.seen, learn.recorder.record.settings["threads"]]
        ended.wait()

    workers = [threading.Thread(target=train, args=(number,)) for number in learners]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert {number: {*found} for number, found in seen.items()} == {1: {1}, 2: {2}, 3: {3}, 4: {1}}
    later = list[int]()
    worker = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    worker.start()
    worker.join()
    assert later == [torch.get_num_threads()] == [4]


def test_a_fit_that_starts_while_another_runs_knows_how_many_threads_torch_had():
    entered, go_on, found = threading.Event(), threading.Event(), list[Any]()

    def first() -> None:
        small().fit(2, 1e-2, callbacks=Sees(lambda: (entered.set(), go_on.wait(60))))

    def second() -> None:
        learn = wide()
        learn.fit(1, 1e-2)
        found.append(learn.recorder.record.settings["threads"])

    worker = threading.Thread(target=first)
    worker.start()
    assert entered.wait(60)
    other = threading.Thread(target=second)
    other.start()
    other.join()
    go_on.set()
    worker.join()
    assert found == [4]


def test_threads_of_python_that_start_during_a_fit_have_torchs_own_number():
    entered, go_on = threading.Event(), threading.Event()
    fit = threading.Thread(target=lambda: small().fit(2, 1e-2, callbacks=Sees(lambda: (entered.set(), go_on.wait(60)))))
    with ThreadPoolExecutor(1) as pool:
        fit.start()
        assert entered.wait(60)
        assert pool.submit(torch.get_num_threads).result() == 4
        go_on.set()
        fit.join()
        learn = wide()
        pool.submit(learn.fit, 1, 1e-2).result()
        assert learn.recorder.record.settings["threads"] == 4
        assert pool.submit(torch.get_num_threads).result() == 4


def test_the_users_number_is_not_taken_for_that_of_another_fit():
    entered, go_on = threading.Event(), threading.Event()
    other = threading.Thread(
        target=lambda: small(threads=2).fit(2, 1e-2, callbacks=Sees(lambda: (entered.set(), go_on.wait(60))))
    )
    other.start()
    assert entered.wait(60)
    torch.set_num_threads(2)
    learn = wide()
    learn.fit(1, 1e-2)
    go_on.set()
    other.join()
    assert learn.recorder.record.settings["threads"] == torch.get_num_threads() == 2


# --- resumed ----------------------------------------------------------------------------------------------------------


def interrupted(folder: Path, **settings: Any) -> None:
    interrupts = Sees(lambda: os.kill(os.getpid(), signal.SIGINT))
    wide(**settings).fit(3, 1e-2, checkpoint=folder, callbacks=interrupts)


@pytest.mark.parametrize(("now", "cores"), [(1, 4), (4, 4), (4, 2)])
def test_a_resumed_fit_has_the_threads_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, now: int, cores: int
):
    whole = wide(threads=2)
    whole.fit(3, 1e-2, callbacks=Sees())
    interrupted(tmp_path / "run", threads=2)
    torch.set_num_threads(now)
    monkeypatch.setattr("onecycle.checkpoint.resume.usable_cores", lambda: cores)
    sees, learn = Sees(), wide()
    learn.resume(tmp_path / "run", callbacks=sees)
    assert sees.seen[-3:] == [2, 2, 2]
    assert learn.recorder.record.settings["threads"] == 2
    assert same(weights(learn), weights(whole))
    assert learn.recorder.record.batch_losses == whole.recorder.record.batch_losses
    assert torch.get_num_threads() == now


def test_a_run_of_more_threads_than_there_are_cores_resumes_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    interrupted(tmp_path / "run", threads=4)
    monkeypatch.setattr("onecycle.checkpoint.resume.usable_cores", lambda: 1)
    sees, learn = Sees(), wide()
    with pytest.warns(UserWarning, match="trained with 4 threads, and this process may use 1 core; the fit resumes wi"):
        learn.resume(tmp_path / "run", callbacks=sees)
    assert {*sees.seen[-3:]} == {1}
    assert learn.recorder.record.settings["threads"] == 1


# --- threads that wait ------------------------------------------------------------------------------------------------


def test_threads_that_wait_for_cores_are_said_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    waited = iter(range(0, 10_000, 1000))
    monkeypatch.setattr(threads_module, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(threads_module, "seconds_waited", lambda: float(next(waited)))
    for threads, lines in ((2, 1), (1, 0)):
        if threads == 1:  # for which nothing is read, an epoch may be short
            monkeypatch.setattr(threads_module, "seconds_waited", lambda: pytest.fail("it is not needed"))
        learn = small(threads=threads)
        learn.silent = False
        learn.fit(3, 1e-2)
        said = capsys.readouterr()
        assert (said.out + said.err).count("threads=1 (--threads 1) none waits for another") == lines
        assert (said.out + said.err).count("s the fit's 2 threads waited 1000.0 s in all for cores that other") == lines

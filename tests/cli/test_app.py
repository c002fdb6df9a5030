"""The command line as a user meets it: help, texts of errors, exit codes, signals."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from onecycle.cli.app import app, run
from onecycle.core.files import with_checksum
from onecycle.core.record import Record

pytestmark = pytest.mark.slow

COMMANDS = ["train", "lr-find", "predict", "inspect", "report", "runs", "cache", "doctor"]
ONECYCLE = [sys.executable, "-m", "onecycle"]


def fails(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    """The exit code of a command that must fail with one line on stderr and nothing on stdout, and that line."""
    code = run([*args])
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return code, err.removeprefix("error: ").rstrip()


def test_help_says_what_commands_do(capsys: pytest.CaptureFixture[str]) -> None:
    for args in [["--help"], *([name, "--help"] for name in COMMANDS)]:
        assert run(args) == 0
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    for word in [*COMMANDS, "--epochs", "--hidden", "white digit on black", "20 x 20", "centre of mass"]:
        assert word in out


# typer itself, what it is made of, and rich, which versions of it load for errors and help
TYPER = {
    *("typer", "click", "shellingham", "annotated_doc", "annotated_types", "typing_extensions", "typing_inspection"),
    *("pydantic", "pydantic_core", "rich", "pygments", "markdown_it", "mdurl"),
}
LIGHT_REQUESTS = [
    *("--help", "--version", *(f"{name} --help" for name in COMMANDS)),
    *("trian mnist", "train mnist --epoch 2", "train mnist --epochs -1", "train . --split x", "train . --task x"),
    *("inspect missing.csv", "train missing.csv --target x", "predict run file -o x.docx", "lr-find mnist --out x.jpg"),
]


@pytest.mark.parametrize("args", LIGHT_REQUESTS)
def test_help_and_bad_requests_import_only_typer(here: Path, args: str) -> None:
    code = (
        "import sys\n"
        "before = {*sys.modules}\n"
        "from onecycle.cli.app import run\n"
        "code = run(sys.argv[1:])\n"
        "print(code, *sorted({*sys.modules} - before), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *args.split()], capture_output=True, text=True, check=True)
    exit_code, *modules = done.stderr.splitlines()[-1].split()
    assert exit_code == ("0" if "--" in args.split()[-1] else "2")
    ours = [module for module in modules if module.partition(".")[0] == "onecycle"]
    others = {module.partition(".")[0] for module in modules} - {"onecycle"} - sys.stdlib_module_names
    assert {name for name in others if not name.startswith("_")} <= TYPER  # "_sysconfigdata_..." is Python's own
    assert len(ours) <= 14, ours


def test_all_commands_are_there() -> None:
    names = [command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands]
    assert names == COMMANDS


def test_without_a_command_it_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("train mnist --epoch 2", 'unknown option "--epoch"; did you mean "--epochs"?'),
        ("--versoin", 'unknown option "--versoin"; did you mean "--version"?'),
        ("train mnist --nosuch 1", 'unknown option "--nosuch"; see onecycle train --help'),
        ("train MNIST", 'unknown data set "MNIST"; did you mean "mnist"?'),
        ("report --zzz x", 'unknown option "--zzz"; see onecycle report --help'),
        ("trian mnist", 'unknown command "trian"; did you mean "train"?'),
        ("xyz", 'unknown command "xyz"; expected one of train, lr-find, predict, inspect, report, runs, cache, doctor'),
        ("train", "SOURCE is missing, which says what is trained on: mnist, or the path of a file or folder"),
        ("train mnits", 'unknown data set "mnits"; did you mean "mnist"?'),
        ("train cifar", 'unknown data set "cifar"; expected mnist, or the path of a file or folder'),
        ("train mnist --epochs -1", "--epochs is -1; expected a whole number of at least 0, or auto"),
        ("train mnist --epochs 1.5", "--epochs is 1.5; expected a whole number of at least 0, or auto"),
        ("train mnist --lr 0", "--lr is 0; expected a number above 0, or auto"),
        ("train mnist --lr -1e-3", "--lr is -1e-3; expected a number above 0, or auto"),
        ("train mnist --lr nan", "--lr is nan; expected a number above 0, or auto"),
        ("train mnist --lr inf", "--lr is inf; expected a number above 0, or auto"),
        ("train mnist --lr fast", "--lr is fast; expected a number above 0, or auto"),
        ("train mnist --bs 0", "--bs is 0; expected a whole number of at least 1, or auto"),
        ("train mnist --wd -1", "--wd is -1; expected a number of at least 0"),
        ("train mnist --seed -1", "--seed is -1; expected a whole number of at least 0"),
        (
            "train mnist --hidden 50,x",
            "--hidden is 50,x; expected sizes from 1 to 1,000,000, separated by commas: 256,128",
        ),
        ("train mnist --hidden 5000000000", "--hidden is 5000000000; expected sizes from 1 to 1,000,000, separated"),
        ("train missing.csv --target x", "missing.csv: no such file; check the path"),
        ("train deep/missing.csv", "deep/missing.csv: no such file; the folder deep does not exist either"),
        ("inspect cifra", 'unknown data set "cifra"; expected mnist, or the path of a file or folder'),
        ("train mnist --target y", "--target is for data of your own; mnist has its classes and its split"),
        ("train mnist --kind y=number", "--kind is for data of your own; mnist has its classes and its split"),
        ("train mnist --split random", "--split is for data of your own"),
        ("train mnist --image-size 8", "--image-size is for data of your own"),
        ("train mnist --task classes", "--task is for data of your own"),
        ("train mnist --task clases", "--task is clases; expected classes, regression or multilabel; did you mean"),
        (
            "train . --task clases",
            '--task is clases; expected classes, regression or multilabel; did you mean "classes"?',
        ),
        (
            "train . --split tiem:x",
            "--split is tiem:x; expected one of auto, random, stratified, time:COLUMN, group:COLUMN",
        ),
        (
            "train . --split randon",
            '--split is randon; expected one of auto, random, stratified, time:COLUMN, group:COLUMN, column:COLUMN; did you mean "random"?',
        ),
        ("train . --split time", "--split is time; expected one of"),
        ("train . --split time:", "--split is time:; expected one of"),
        ("train . --split random:x", "--split is random:x; expected one of"),
        ("train . --valid 1.5", "--valid is 1.5; expected a share between 0 and 1, or a whole number of rows"),
        ("train . --valid 0", "--valid is 0; expected a share between 0 and 1, or a whole number of rows"),
        ("train . --valid 1.0", "--valid is 1.0; expected a share between 0 and 1"),
        ("train . --valid nan", "--valid is nan; expected a share between 0 and 1"),
        ("train . --target a,,b", '--target is "a,,b"; expected names of columns, separated by commas'),
        ("train . --drop ,", '--drop is ","; expected names of columns, separated by commas'),
        ("train . --kind age", "--kind is age; expected NAME=KIND, for example age=number"),
        (
            "train . --kind age=numbr",
            '--kind of age is numbr; expected number, category, date or dropped; did you mean "number"?',
        ),
        (
            "train . --kind a=b=dat",
            '--kind of a=b is dat; expected number, category, date or dropped; did you mean "date"?',
        ),
        ("train . --image-size 0", "--image-size is 0; expected a side in pixels, or HEIGHTxWIDTH: 28 or 28x32"),
        ("train . --image-size 8x", "--image-size is 8x; expected a side in pixels"),
        ("train . --epochs many", "--epochs is many; expected a whole number of at least 0, or auto"),
        (
            "train . --model tabuler:8",
            '--model is tabuler:8; expected auto, mlp:256,128 or tabular:256,128; did you mean "tabular"?',
        ),
        ("train . --model auto:8", "--model is auto:8; expected auto, mlp:256,128 or tabular:256,128"),
        (
            "train . --model mlp:8,0",
            "--model is mlp:8,0; expected sizes from 1 to 1,000,000, separated by commas: 256,128",
        ),
        ("train . --hidden 8", "--hidden is for mnist; give --model mlp:8"),
        (
            "train mnist --hidden 8 --model mlp:8",
            "--hidden and --model both say how wide the model is; give one of them",
        ),
        (
            "train mnist --model tabular:8",
            "--model is tabular:8, which is for tables; mnist has images: expected mlp:256,128",
        ),
        ("train . --precision fp16", "--precision is fp16; expected fp32 or bf16"),
        ("train . --engine fsat", '--engine is fsat; expected auto, eager or fast; did you mean "fast"?'),
        ("train . --tagret x", 'unknown option "--tagret"; did you mean "--target"?'),
        ("inspect . --lr 1", 'unknown option "--lr"'),
        (
            "predict run x.csv -o x.docx",
            "-o is x.docx; expected a name that ends in .parquet, .csv, .tsv, .arrow, .feather",
        ),
        ("lr-find mnist --out x.jpg", "--out is x.jpg; expected a name that ends in .png: x.png"),
        ("lr-find mnist --bs many", "--bs is many; expected a whole number of at least 1, or auto"),
        ("train mnist --device gpu", 'unknown device "gpu"; expected cpu, cuda, cuda:N or mps'),
        ("predict run x.png --device cud", 'unknown device "cud"'),
        (
            "predict run x.png --device cpuu",
            'unknown device "cpuu"; expected cpu, cuda, cuda:N or mps; did you mean "cpu"?',
        ),
    ],
)
def test_bad_requests(here: Path, capsys: pytest.CaptureFixture[str], args: str, message: str) -> None:
    code, found = fails(capsys, *args.split())
    assert code == 2
    assert found.startswith(message)
    assert not any(here.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = fails(capsys, "train", "mnist", "--device", "cuda")
    assert code == 2
    assert found.startswith('device "cuda" is not on this machine')


def test_report_of_a_folder_without_record(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = "expected the folder of a run, which `onecycle train` wrote"
    assert fails(capsys, "report", "nothing") == (2, f"nothing: no such folder; {expected}")
    Path("empty").mkdir()
    assert fails(capsys, "report", "empty") == (2, f"empty holds no record.json; {expected}")
    Path("file").touch()
    assert fails(capsys, "report", "file") == (2, f"file is a file; {expected}")


@pytest.mark.parametrize(
    "content",
    [
        *("", "no JSON", "[]", "7", '{"lrs": "abc"}', "[" * 100_000, '{"losses": [1.0]}', '{"settings": 3}'),
        *('{"losses": [1], "lrs": [1], "moms": [1], "lr_curve": {"a": 1}}', '{"mistakes": {"top_losses": [1]}}'),
        *('{"mistakes": {"confusion_matrix": [[1, 2]], "classes": 5}}', '{"settings": {"loss when stopped": "x"}}'),
        *('{"epochs": [0], "val_losses": [1], "metrics": [[1]]}', '{"mistakes": {"most_confused": 4}}'),
    ],
)
def test_report_of_a_damaged_record(here: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    Path("record.json").write_text(content)
    code, found = fails(capsys, "report", ".")
    assert code == 2
    assert found.startswith("record.json: not a readable record (")
    with suppress(ValueError, RecursionError, TypeError):  # the same by somebody who knows how files are signed
        Path("record.json").write_text(with_checksum(json.loads(content)))
        code, found = fails(capsys, "report", ".")
        assert code == 2
        assert found.startswith("record.json: no")
    assert not Path("report.html").exists()


def test_unexpected_errors_are_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: bool) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("onecycle.cli.doctor.doctor", broken)
    code, found = fails(capsys, "doctor")
    assert code == 1
    assert found.startswith("unexpected ZeroDivisionError: oops")
    assert "ONECYCLE_DEBUG=1" in found
    monkeypatch.setenv("ONECYCLE_DEBUG", "1")
    assert run(["doctor"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_outside_a_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_: bool) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("onecycle.cli.doctor.doctor", stopped)
    assert fails(capsys, "doctor") == (130, "interrupted")


def test_completion_knows_the_choices(here: Path) -> None:
    def completed(line: str) -> list[str]:
        words = line.split(" ")
        completion = {"_ONECYCLE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        done = subprocess.run(ONECYCLE, env=os.environ | completion, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("onecycle train --task ") == ["classes", "regression", "multilabel"]
    assert completed("onecycle train --engine f") == ["fast"]
    assert {"--target", "--resume"} <= {*completed("onecycle train --")}
    assert completed("onecycle do") == ["doctor"]
    assert "--help" in completed("onecycle trian --")  # no error while something is typed


def test_doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["torch"] == torch.__version__
    assert {"rich", "pillow", "onnx", "onnxruntime", "onnxscript"} <= found.keys()
    assert not {"pytest", "hypothesis", "jupyterlab", "ipykernel"} & found.keys()
    assert found["embedded mnist"].startswith("whole (50,000 / 10,000 / 10,000")
    assert found["home"] == os.environ["ONECYCLE_HOME"]
    monkeypatch.setenv("ONECYCLE_DEVICE", "gpu")
    assert run(["doctor"]) == 1
    assert 'BAD: unknown device "gpu"' in capsys.readouterr().out


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    Record().save(tmp_path / "record.json")
    read, write = os.pipe()
    os.close(read)
    command = [*ONECYCLE, "report", str(tmp_path)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def interrupted_train(out: Path, sent: signal.Signals) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a training of real MNIST that gets the signal after its first epoch."""
    args = ["train", "mnist", "--lr", "0.01", "--epochs", "1000", "--out", str(out)]
    process = subprocess.Popen([*ONECYCLE, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        assert process.stdout is not None
        head = [process.stderr.readline() for _ in range(2)]
        assert head[0].split() == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
        process.send_signal(sent)
        out_text, err_text = process.stdout.read(), process.stderr.read()
    return process.returncode, out_text, err_text


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_trained(tmp_path: Path) -> None:
    code, out, err = interrupted_train(tmp_path / "run", signal.SIGINT)
    assert code == 130
    assert "interrupted: what was trained so far is in" in err
    assert "Traceback" not in err
    assert {Path(line).name for line in out.split()} >= {"model", "record.json", "report.html"}
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["stopped"] == "interrupted"
    assert len(record["epochs"]) >= 1
    assert "interrupted" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.slow
def test_sigterm(tmp_path: Path) -> None:
    code, out, err = interrupted_train(tmp_path / "run", signal.SIGTERM)
    assert code == 143
    assert err.endswith("error: ended by SIGTERM\n")
    assert "Traceback" not in err
    assert not out
    assert not (tmp_path / "run").exists()

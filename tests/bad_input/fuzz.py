"""Fuzz the readers: `python tests/bad_input/fuzz.py --seconds 600`, or with names of formats for these only.

Damaged files may raise OneCycleError and nothing else: no other exception, no warning, no crash of the process, none
that takes more than ten seconds. With atheris (`pip install atheris`) the damage is guided by what of onecycle it
reaches; without, it is blind. What is found is written to --out: the file's content, and why in `found.txt`.
"""

import argparse
import hashlib
import os
import random
import re
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

TESTS = Path(__file__).parents[1]
SLOW = 10  # seconds
MEMORY = 4096  # MiB


class Target:
    """Feeds a format's reader, and keeps what must not be: one file for each place where it happens."""

    def __init__(self, name: str, out: Path, folder: Path) -> None:
        from bad_input.formats import FORMATS

        self.name, self.format, self.out, self.folder = name, FORMATS[name], out, folder
        self.count, self.known = 0, set[str]()

    def __call__(self, content: bytes) -> None:
        """Read a file of this content."""
        from onecycle.errors import OneCycleError

        (self.out / f"{self.name}.last").write_bytes(content)  # what is left where the process crashes
        self.count += 1
        start = time.monotonic()
        try:
            self.format.feed(content, self.folder)
        except OneCycleError:
            pass
        except Exception as error:
            self._keep(content, error)
        if time.monotonic() - start > SLOW:
            self._keep(content, TimeoutError(f"took {time.monotonic() - start:.0f} s"))

    def _keep(self, content: bytes, error: Exception) -> None:
        place = [frame for frame in traceback.extract_tb(error.__traceback__) if "/onecycle/" in frame.filename]
        where = f"{Path(place[-1].filename).name}:{place[-1].lineno}" if place else ""
        what = f"{type(error).__name__} at {where}"
        if what in self.known:
            return
        self.known.add(what)
        file = self.out / f"{self.name}-{hashlib.sha256(content).hexdigest()[:12]}"
        file.write_bytes(content)
        with (self.out / "found.txt").open("a") as found:
            found.write(f"{file.name}: {what}: {str(error)[:300]}\n")


def guided(target: Target, seconds: int, corpus: Path) -> int:
    """Run libFuzzer for so long; the exit code, which is not 0 where the process would have crashed."""
    import atheris

    size = max(4096, 4 * max(len(file.read_bytes()) for file in corpus.iterdir()))
    options = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY}", f"-max_len={size}", "-print_final_stats=1"]
    options += [f"-artifact_prefix={target.out}/{target.name}-crash-", "-timeout=60", str(corpus)]
    atheris.Setup([sys.argv[0], *options], target)
    atheris.Fuzz()
    return 0


def blind(target: Target, seconds: int, corpus: Path) -> int:
    """Change the files of the corpus at random for so long."""
    generator, start = random.Random(target.name), time.monotonic()
    seeds = [file.read_bytes() for file in sorted(corpus.iterdir())]
    while time.monotonic() - start < seconds:
        target(damaged(generator.choice(seeds), generator))
    print(f"{target.name}: {target.count:,} files read")
    return 0


def damaged(content: bytes, generator: random.Random) -> bytes:
    """`content` with one to eight changes: bits, numbers, pieces that are lost, doubled or moved, a cut."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 8)):
        at, length = generator.randrange(len(data) + 1), generator.choice([1, 1, 2, 4, 8, 30])
        piece = bytes(data[at : at + length])
        change = generator.randrange(7)
        if change == 0 and at < len(data):
            data[at] ^= 1 << generator.randrange(8)
        elif change == 1:
            data[at : at + length] = generator.randbytes(length)
        elif change == 2:
            data[at : at + length] = generator.choice([b"\xff", b"\0", b"\x7f", b"\x80"]) * length
        elif change == 3:
            del data[at : at + length]
        elif change == 4:
            data[at:at] = piece * generator.choice([1, 2, 50])
        elif change == 5:
            there = generator.randrange(len(data) + 1)
            data[there : there + length] = piece
        elif generator.random() < 0.2:
            del data[at:]
    return bytes(data)


def fuzz(name: str, seconds: int, out: Path, blindly: bool) -> int:
    """Fuzz one format in this process; the exit code."""
    os.environ |= {"MPLBACKEND": "Agg", "CI": "1"}
    sys.path.insert(0, str(TESTS))
    run: Callable[[Target, int, Path], int] = blind
    if not blindly:
        import atheris

        with atheris.instrument_imports(include=["onecycle"]):
            import bad_input.formats  # noqa: F401 -- atheris instruments what is imported here
        run = guided
    import torch

    from bad_input.formats import FORMATS

    torch.set_num_threads(1)
    warnings.simplefilter("error")  # a warning is no answer either
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        os.environ["ONECYCLE_HOME"] = folder
        corpus = out / "corpus" / name
        corpus.mkdir(parents=True, exist_ok=True)
        (corpus / "good").write_bytes(FORMATS[name].good())
        return run(Target(name, out, Path(folder)), seconds, corpus)


def main() -> int:
    """Fuzz formats one after the other, each in a process of its own; 1 where something was found."""
    sys.path.insert(0, str(TESTS))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="FORMAT")
    parser.add_argument("--seconds", type=int, default=600, help="for all formats together")
    parser.add_argument("--out", type=Path, default=Path("fuzz-out"), help="where to write what is found")
    parser.add_argument("--blind", action="store_true", help="without atheris")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # one format, in this process
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.here:
        return fuzz(args.names[0], args.seconds, args.out.resolve(), args.blind)
    from bad_input.formats import FORMATS

    names, crashed, total = args.names or list(FORMATS), list[str](), 0
    share = max(args.seconds // len(names), 1)
    for name in names:
        command = [sys.executable, __file__, name, "--here", "--seconds", str(share), "--out", str(args.out)]
        done = subprocess.run([*command, *["--blind"] * args.blind], capture_output=True, text=True, check=False)
        (args.out / f"{name}.log").write_text(done.stdout + done.stderr)
        counts = re.findall(r"number_of_executed_units: (\d+)|: ([\d,]+) files read", done.stdout + done.stderr)
        count = int("".join(counts[-1]).replace(",", "")) if counts else 0
        total += count
        print(f"{name}: {share} s, {count:,} files", flush=True)
        if done.returncode:
            crashed.append(name)
            print(f"{name}: exit code {done.returncode}; see {args.out / name}.log and {args.out / name}.last")
    found = (args.out / "found.txt").read_text() if (args.out / "found.txt").exists() else ""
    print(f"{total:,} files read; {found.count(chr(10))} kinds of faults, {len(crashed)} crashes", found, sep="\n")
    return 1 if found or crashed else 0


if __name__ == "__main__":
    sys.exit(main())

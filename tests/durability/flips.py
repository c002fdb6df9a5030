"""Damage every file of a checkpoint, a save, a bundle (folder and zip) and a record: each damage is found before use.

    python tests/durability/flips.py [--flips 10000] [--seed 0]

Every file is cut at each multiple of 4 KiB, at its ends, and emptied; is missing; is swapped with another; and so many
single bits of all files are flipped, one at a time.
"""

import argparse
import random
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from durability.training import learner
from onecycle import CheckpointConfig, load_learner
from onecycle.checkpoint.run_folder import RunFolder
from onecycle.core.record import Record
from onecycle.errors import FileError

STEP = 4096


def places(folder: Path) -> dict[Path, Callable[[], object]]:
    """Folders that the library wrote, each with what reads it."""
    learn = learner()
    learn.fit_one_cycle(1, 1e-2, checkpoint=CheckpointConfig(folder / "run", keep=1))
    learn.path = folder
    saved, bundle, packed = learn.save("saved"), learn.export("digits.onecycle"), learn.export("packed/digits.zip")
    run, records = RunFolder(folder / "run"), folder / "records"
    name = run.names()[0]
    learn.recorder.record.save(records / "record.json")
    return {
        run.checkpoints / name: lambda: run.read(name),
        saved: lambda: learn.load("saved"),
        bundle: lambda: load_learner(bundle, device="cpu"),
        packed.parent: lambda: load_learner(packed, device="cpu"),
        records: lambda: Record.load(records / "record.json"),
    }


def damages(content: bytes) -> list[bytes]:
    """What is left where a file is cut short."""
    cuts = {0, 1, len(content) - 1, *range(STEP, len(content), STEP)}
    return [content[:cut] for cut in sorted(cuts) if cut < len(content)] + [content + b"\0"]


def is_found(read: Callable[[], object]) -> bool:
    """Whether reading says that a file is damaged."""
    try:
        read()
    except FileError:
        return True
    return False


def torture(flips: int, seed: int, folder: Path) -> tuple[int, int]:
    """How many damages there were, and how many of them were not found."""
    generator, count, missed = random.Random(seed), 0, 0
    where = places(folder)

    def tried(path: Path, content: bytes | None, read: Callable[[], object]) -> None:
        nonlocal count, missed
        before = path.read_bytes()
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content)
        count += 1
        if not is_found(read):
            missed += 1
            print(f"not found: {path}")
        path.write_bytes(before)

    files = [(path, read) for place, read in where.items() for path in sorted(place.iterdir())]
    for path, read in files:
        content = path.read_bytes()
        others = [other.read_bytes() for other in path.parent.iterdir()]
        for damaged in [*damages(content), None, *others]:
            if damaged != content:
                tried(path, damaged, read)
    sizes = [path.stat().st_size for path, _ in files]
    for _ in range(flips):
        path, read = generator.choices(files, sizes)[0] if generator.random() < 0.5 else generator.choice(files)
        content = bytearray(path.read_bytes())
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        tried(path, bytes(content), read)
    for read in where.values():
        read()  # what was put back is whole
    return count, missed


def main() -> int:
    """Print what was found; 1 where a damage was not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with TemporaryDirectory() as folder:
        count, missed = torture(options.flips, options.seed, Path(folder))
    print(f"{count:,} damages, {count - missed:,} found before use")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())

"""Takes large files to a machine that only small folders reach: cut into loads here, put together and checked there.

A maintainer's command; needs Python alone. Here, once:

    python tools/carry.py split FILE ... --to .carry [--mib 60]

makes the folders ``.carry/0``, ``.carry/1``, ... of at most so many MiB. There, for each load that has arrived:

    python tools/carry.py join .carry/0 --to FOLDER

which keeps the pieces in FOLDER until a file is complete, and puts it there under its own name once its SHA-256 is
right. Loads may come in any order, and again.
"""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

MANIFEST = "manifest.json"


def split(files: list[Path], folder: Path, load_bytes: int) -> list[Path]:
    """Cut `files` into loads of at most `load_bytes` each; return their folders."""
    shutil.rmtree(folder, ignore_errors=True)
    loads: list[Path] = []
    room = 0
    for file in files:
        content = file.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        start = 0
        index = 0
        while start < len(content) or index == 0:
            if room == 0:
                loads.append(folder / str(len(loads)))
                loads[-1].mkdir(parents=True)
                (loads[-1] / MANIFEST).write_text("[]")
                room = load_bytes
            piece = content[start : start + room]
            name = f"{digest[:16]}.{index}"
            (loads[-1] / name).write_bytes(piece)
            entries = json.loads((loads[-1] / MANIFEST).read_text())
            is_last = start + len(piece) == len(content)
            entries.append({"piece": name, "file": file.name, "sha256": digest, "index": index, "is_last": is_last})
            (loads[-1] / MANIFEST).write_text(json.dumps(entries, indent=1))
            start += len(piece)
            room -= len(piece)
            index += 1
    return loads


def join(load: Path, folder: Path) -> list[Path]:
    """Add a load to what is in `folder`; return the files that became complete.

    Raises
    ------
    ValueError
        A complete file has another SHA-256 than the one that was cut; its pieces are gone then.
    """
    pieces = folder / ".pieces"
    pieces.mkdir(parents=True, exist_ok=True)
    complete = []
    for entry in json.loads((load / MANIFEST).read_text()):
        shutil.copyfile(load / entry["piece"], pieces / entry["piece"])
        known = pieces / f"{entry['sha256'][:16]}.count"
        if entry["is_last"]:
            known.write_text(str(entry["index"] + 1))
        if not known.exists():
            continue
        parts = [pieces / f"{entry['sha256'][:16]}.{i}" for i in range(int(known.read_text()))]
        if not all(part.exists() for part in parts):
            continue
        target = folder / entry["file"]
        digest = hashlib.sha256()
        with target.open("wb") as out:
            for part in parts:
                content = part.read_bytes()
                digest.update(content)
                out.write(content)
        for part in (*parts, known):
            part.unlink()
        if digest.hexdigest() != entry["sha256"]:
            target.unlink()
            raise ValueError(f"{entry['file']}: expected SHA-256 {entry['sha256']}, got {digest.hexdigest()}")
        complete.append(target)
    return complete


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    cut = commands.add_parser("split", help="cut files into loads")
    cut.add_argument("files", nargs="+", type=Path, metavar="FILE")
    cut.add_argument("--to", type=Path, required=True, help="folder of the loads; what is in it goes")
    cut.add_argument("--mib", type=float, default=60, help="most MiB of a load (default: 60)")
    put = commands.add_parser("join", help="add a load to the files")
    put.add_argument("load", type=Path)
    put.add_argument("--to", type=Path, required=True, help="folder of the files")
    options = parser.parse_args()
    if options.command == "split":
        for load in split(options.files, options.to, int(options.mib * 2**20)):
            print(load)
    else:
        for file in join(options.load, options.to):
            print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())

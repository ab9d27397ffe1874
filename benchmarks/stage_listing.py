"""Finding the images: a folder of a million names, archives of 100,000 pictures, beside the least that has to be done.

The least is what the standard library takes for the same names without asking what they are: `os.scandir` and a sort,
`zipfile`'s reading of the central directory, `tarfile`'s walk over the headers.
"""

import io
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import Agreement, Config, Measured, Result, Target, at_most, compare
from fastfid.sources import open_source

SAME_COUNT = Agreement(why="the same number of pictures")
EXTENSIONS = ("bmp", "jpg", "jpeg", "pgm", "png", "ppm", "tif", "tiff", "webp")


def at_most_times(bare: str, limit: float) -> Callable[[Mapping[str, Measured]], Target]:
    """Target: at most `limit` times as long as the bare reading."""

    def check(measured: Mapping[str, Measured]) -> Target:
        ratio = measured["fastfid"].median / measured[bare].median
        return Target(f"at most {limit:g} x the time of {bare}", ratio, limit, ratio <= limit)

    return check


def _write_names(folder: str, count: int) -> None:
    # The names are not made in sorted order, because sorting sorted names takes no time.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        for i in range(count):
            os.close(os.open(f"{i * 7919 % count:07d}.png", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    finally:
        os.close(descriptor)


def _write_zip(path: Path, count: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(count):
            archive.writestr(f"{i:06d}.png", b"")


def _write_tar(path: Path, count: int) -> None:
    with tarfile.open(path, "w") as archive:
        for i in range(count):
            info = tarfile.TarInfo(f"{i:06d}.png")
            info.size = 512  # data between the headers, as there would be
            archive.addfile(info, io.BytesIO(bytes(512)))


def run(config: Config) -> Iterator[Result]:
    config.cache.mkdir(parents=True, exist_ok=True)
    for left in config.cache.glob("listing-*"):  # left by a killed run
        shutil.rmtree(left)
    # A million files are made for this run and deleted afterwards, because they would slow down backups and searches.
    with tempfile.TemporaryDirectory(prefix="listing-", dir=config.cache) as scratch:
        yield _folder(config, Path(scratch) / "names")
        yield _archive(config, Path(scratch) / "pictures.zip", _write_zip, "zipfile's directory", _zip_members)
        yield _archive(config, Path(scratch) / "pictures.tar", _write_tar, "tarfile's walk", _tar_members)


def _folder(config: Config, folder: Path) -> Result:
    count = config.pick(100_000, 1_000_000)
    folder.mkdir()
    _write_names(str(folder), count)

    def bare() -> int:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
        names.sort()
        return len(names)

    def globbed() -> int:  # as pytorch-fid lists a folder
        return len(sorted(file for ext in EXTENSIONS for file in folder.glob(f"*.{ext}")))

    return compare(
        config,
        f"list and sort {count:,} names",
        {
            "fastfid": lambda: len(open_source(folder)),
            "os.scandir and sort": bare,
            "pytorch-fid's glob": globbed,
        },
        against="pytorch-fid's glob",
        agree=SAME_COUNT,
        repeats=config.pick(3, 5),
        count=count,
        unit="names/s",
        # Twice the minimum, because each name is checked: is it a file, and has it a picture's extension?
        targets=[at_most("fastfid", "median", 3e-6 * count), at_most_times("os.scandir and sort", 2)],
        facts={"n": count},
    )


def _zip_members(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return len(archive.infolist())


def _tar_members(path: Path) -> int:
    with tarfile.open(path) as archive:
        return len(archive.getmembers())


def _archive(
    config: Config, path: Path, write: Callable[[Path, int], None], bare: str, members: Callable[[Path], Any]
) -> Result:
    count = config.pick(20_000, 100_000)
    write(path, count)
    return compare(
        config,
        f"open a {path.suffix[1:]} of {count:,} pictures",
        {"fastfid": lambda: len(open_source(path)), bare: lambda: members(path)},
        against=bare,
        agree=SAME_COUNT,
        repeats=config.pick(3, 5),
        count=count,
        unit="names/s",
        # The standard library reads the archive. Sorting and selecting the names takes a fraction of this time.
        targets=[at_most_times(bare, 1.5)],
        facts={"n": count},
    )

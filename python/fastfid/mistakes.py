"""Detection of likely mistakes in sets of images. Each is reported as a sentence and does not change the results."""

import hashlib
import os
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid.tally import Tally

__all__ = ["Census", "mixed_kinds", "overlap", "same_place"]

# Words in file names that distinguish kinds of pictures.
_KINDS = frozenset(
    (
        *("real", "fake", "generated", "gen", "synthetic"),
        *("input", "output", "target", "gt", "pred", "recon", "reconstruction", "label", "mask"),
        *("train", "test", "val", "valid", "validation"),
        *("thumb", "thumbs", "thumbnail", "thumbnails", "preview"),
    )
)
# Largest number of names to examine, because a folder may contain millions.
_MOST_NAMES = 20_000
_BLOCK = 100


class Census:
    """Facts about one set of images, collected while it is read.

    They are: whether any image has grey levels, a digest of each, and how many have which size, mode and format.

    Parameters
    ----------
    keeps_digests : bool
        Whether to store a digest of 8 bytes per image. Digests detect equal images.

    Attributes
    ----------
    tally : Tally
        Sizes, modes and formats of the images that were decoded.
    """

    def __init__(self, *, keeps_digests: bool = True) -> None:
        self._has_levels = False  # an image has a value from 2 to 254
        self._has_one = self._has_white = False
        self._n = 0
        self._keeps_digests = keeps_digests
        self._digests = array("Q")
        self.tally = Tally()

    @property
    def has_levels(self) -> bool:
        """Whether an image with grey levels was seen: further images need not be."""
        return self._has_levels

    def see(self, image: NDArray[Any]) -> None:
        """Examine an image before it is prepared. Worker threads call this method."""
        if self._has_levels:
            return
        if image.dtype != np.uint8 or ((image > 1) & (image < 255)).any():
            self._has_levels = True
        else:
            self._has_one = self._has_one or bool((image == 1).any())
            self._has_white = self._has_white or bool((image == 255).any())

    def add(self, features: NDArray[Any]) -> None:
        """Add the features of a batch: count the images and store their digests."""
        self._n += len(features)
        if self._keeps_digests:
            for row in np.ascontiguousarray(features):
                self._digests.frombytes(hashlib.blake2b(row.data, digest_size=8).digest())

    @property
    def digests(self) -> NDArray[np.uint64]:
        """One digest per image. Equal features have equal digests."""
        return np.frombuffer(self._digests, np.uint64)

    # The arrays of a state.
    STATE = ("census_flags", "census_digests", *Tally.STATE)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return what the census has collected, as arrays by the names of :attr:`STATE`."""
        flags = [self._has_levels, self._has_one, self._has_white, self._keeps_digests, self._n]
        return {
            "census_flags": np.array(flags, np.int64),
            "census_digests": self.digests.copy(),
            **self.tally.state(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> "Census":
        """Return a census that has collected what is in a state."""
        flags = state["census_flags"].tolist()
        self = cls(keeps_digests=bool(flags[3]))
        self._has_levels, self._has_one, self._has_white = map(bool, flags[:3])
        self._n = flags[4]
        self._digests.frombytes(state["census_digests"].tobytes())
        self.tally = Tally.from_state(state)
        return self

    def merge(self, other: "Census") -> None:
        """Add the images of `other`, which follow those of this census."""
        self._has_levels = self._has_levels or other._has_levels
        self._has_one = self._has_one or other._has_one
        self._has_white = self._has_white or other._has_white
        self._n += other._n
        self.tally.merge(other.tally)
        if self._keeps_digests:
            self._digests.extend(other._digests)

    def without_levels(self) -> str | None:
        """Return a remark if at least two images look like floats cast to uint8, else None.

        Images of pure black and white (0 and 255 only) give no remark.
        """
        if self._has_levels or self._n < 2 or (self._has_white and not self._has_one):
            return None
        if self._has_white:
            return (
                f"its {self._n:,} images have the values 0, 1 and 255 only: were images in -1..1 cast to uint8?"
                " Convert them by ((x + 1) * 127.5).round().astype('uint8')"
            )
        return (
            f"no value of its {self._n:,} images exceeds 1: were images in 0..1 cast to uint8?"
            " Convert them by (x * 255).round().astype('uint8')"
        )

    def remarks(self) -> list[str]:
        """Return the remarks about this set. The caller puts the name of the set before each remark."""
        return [text for text in (self.without_levels(), self.repeats()) if text]

    def repeats(self) -> str | None:
        """Return a remark if all images are identical, or more than one in a hundred repeats another; else None."""
        n = len(self._digests)
        different = len(np.unique(self.digests))
        if n < 2 or (n - different) * 100 <= n:
            return None
        if different == 1:
            return f"all {n:,} images are the same"
        return f"{n - different:,} of its {n:,} images only repeat others exactly"


def overlap(real: Census, fake: Census) -> str | None:
    """Return a remark if images of one set are in the other, with bit-identical features; else None."""
    shared = int(np.isin(fake.digests, real.digests).sum())
    if shared == 0:
        return None
    n = len(fake.digests)
    if shared == n and np.isin(real.digests, fake.digests).all():
        return "both sides hold the same images"
    return f"{shared:,} of the {n:,} generated images are also among the real ones, with the same features to the bit"


def same_place(real: Any, fake: Any, *, recursive: bool) -> str | None:
    """Return a remark if two paths are the same, or one is inside the other and is read with it; else None."""
    if not (isinstance(real, str | os.PathLike) and isinstance(fake, str | os.PathLike)):
        return None
    a, b = (os.path.realpath(os.fsdecode(path)) for path in (real, fake))
    if a == b and os.path.exists(a):
        return f"both sides are the same: {os.fsdecode(real)}"
    if not (recursive and os.path.isdir(a) and os.path.isdir(b)):
        return None
    for inner, outer, inner_name, outer_name in ((a, b, real, fake), (b, a, fake, real)):
        if inner.startswith(outer.rstrip(os.sep) + os.sep):
            return (
                f"{os.fsdecode(inner_name)} is inside {os.fsdecode(outer_name)}: with --recursive its images count on"
                " both sides"
            )
    return None


def mixed_kinds(name: str, names: Iterable[str], number: int) -> str | None:
    """Return a remark if the pictures of one source are of several kinds, else None.

    There are two criteria. Many pictures form pairs whose names differ by a word for a kind, such as ``1_real.png``
    beside ``1_fake.png``. Or almost all pictures are in folders named by such words, such as ``train/`` beside
    ``test/``.

    Parameters
    ----------
    name : str
        Name of the source.
    names : iterable of str
        Names of its pictures in order, with "/" between the parts of a path.
    number : int
        Number of names. If there are more than 20,000 names, blocks from the whole list are examined.
    """
    looked_at = _sample(names, number)
    if not any(_KIND_AT_ALL.search(path) for path in looked_at):
        return None
    examples: dict[str, str] = {}
    counts: Counter[str] = Counter()
    kinds_of: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    folders = Counter(path.lower().partition("/")[0] for path in looked_at if "/" in path)
    of_kinds = [count for folder, count in folders.items() if folder in _KINDS]
    # If other folders contain many pictures, folders named by such words are classes of the data set.
    are_kinds = sum(of_kinds) >= 0.9 * sum(folders.values())
    for path in looked_at:
        kind, rest = _kind_and_rest(path.lower(), are_kinds)
        counts[kind] += 1
        examples.setdefault(kind, path)
        kinds_of[rest].add(kind)
    pairs = sum(len(kinds) > 1 for kinds in kinds_of.values())
    in_folders = are_kinds and len(of_kinds) > 1
    if len(counts) < 2 or (pairs < max(2, len(looked_at) // 10) and not in_folders):
        return None
    found = ", ".join(f"{count:,} like {examples[kind]}" for kind, count in counts.most_common(3))
    among = "" if len(looked_at) == number else f" among {len(looked_at):,} names looked at"
    return f"{name}: holds pictures of different kinds ({found}{among}); --match PATTERN takes one kind"


_KIND_AT_ALL = re.compile(rf"(?i)(?<![a-z0-9])({'|'.join(sorted(_KINDS))})(?![a-z0-9])")


def _kind_and_rest(path: str, folders_are_kinds: bool) -> tuple[str, tuple[str, ...]]:
    """Return the words for kinds in a path, and the rest of the path.

    In the file name, each part between separators may be a word. A folder's name must be a word as a whole.
    """
    *folders, file = path.split("/")
    parts = re.split(r"[_.\-\s]+", file)[:-1]  # the last part is the extension
    kinds = [part for part in parts if part in _KINDS]
    rest = [part for part in parts if part not in _KINDS]
    if folders_are_kinds:
        kinds = [folder for folder in folders if folder in _KINDS] + kinds
        folders = [folder for folder in folders if folder not in _KINDS]
    return " ".join(kinds), (*folders, *rest)


def _sample(names: Iterable[str], number: int) -> Sequence[str]:
    if number <= _MOST_NAMES:
        return list(names)
    step = number // (_MOST_NAMES // _BLOCK)
    found: list[str] = []
    iterator = iter(names)
    while block := list(islice(iterator, _BLOCK)):
        found += block
        next(islice(iterator, step - _BLOCK, step - _BLOCK), None)  # skip the rest of the step
    return found

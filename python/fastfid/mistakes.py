"""Signs that a set of images is not the one that is meant. Each sign is a sentence; the numbers stay what they are."""

import hashlib
import os
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Census", "mixed_kinds", "overlap", "same_place"]

# Words that tell kinds of pictures apart where they stand in names.
_KINDS = frozenset(
    (
        *("real", "fake", "generated", "gen", "synthetic"),
        *("input", "output", "target", "gt", "pred", "recon", "reconstruction", "label", "mask"),
        *("train", "test", "val", "valid", "validation"),
        *("thumb", "thumbs", "thumbnail", "thumbnails", "preview"),
    )
)
# Names looked at: a folder may hold millions.
_MOST_NAMES = 20_000
_BLOCK = 100


class Census:
    """What is remembered of one set of images while it is read: whether any is brighter than 1, and 8 bytes of each."""

    def __init__(self) -> None:
        self._has_levels = False
        self._digests = array("Q")

    def see(self, image: NDArray[Any]) -> None:
        """Look at an image before it is prepared. Called from worker threads."""
        if not self._has_levels and image.max() > 1:
            self._has_levels = True

    def add(self, features: NDArray[Any]) -> None:
        """Remember the features of a batch."""
        for row in np.ascontiguousarray(features):
            self._digests.frombytes(hashlib.blake2b(row.data, digest_size=8).digest())

    @property
    def digests(self) -> NDArray[np.uint64]:
        """One number an image; equal features have equal ones."""
        return np.frombuffer(self._digests, np.uint64)

    def without_levels(self, name: str) -> str | None:
        """Say so if no value of at least two images exceeds 1."""
        if self._has_levels or len(self._digests) < 2:
            return None
        return (
            f"{name}: no value of its {len(self._digests):,} images exceeds 1: were images in 0..1 cast to uint8?"
            " Convert them by (x * 255).round().astype('uint8')"
        )

    def repeats(self, name: str) -> str | None:
        """Say so if all images are the same, or more than one in a hundred repeats another."""
        n = len(self._digests)
        different = len(np.unique(self.digests))
        if n < 2 or (n - different) * 100 <= n:
            return None
        if different == 1:
            return f"{name}: all {n:,} images are the same"
        return f"{name}: {n - different:,} of {n:,} images are exact repeats of others"


def overlap(real: Census, fake: Census, real_name: str, fake_name: str) -> str | None:
    """Say so if images of one set are in the other, to the last bit of their features."""
    shared = int(np.isin(fake.digests, real.digests).sum())
    if shared == 0:
        return None
    n = len(fake.digests)
    if shared == n and np.isin(real.digests, fake.digests).all():
        return f"{real_name} and {fake_name} hold the same images"
    return f"{shared:,} of the {n:,} images of {fake_name} are also in {real_name}, with the same features to the bit"


def same_place(real: Any, fake: Any, *, recursive: bool) -> str | None:
    """Say so if two paths are one, or one lies inside the other and is read with it."""
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
    """Say so if the pictures of one source are of several kinds, such as ``1_real.png`` beside ``1_fake.png``.

    Parameters
    ----------
    name : str
        What the source is called.
    names : iterable of str
        The names of its pictures, "/" between their parts, in order.
    number : int
        How many there are. Of more than 20,000, blocks from all over the list are looked at.
    """
    looked_at = _sample(names, number)
    examples: dict[str, str] = {}
    counts: Counter[str] = Counter()
    kinds_of: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    folders: Counter[str] = Counter()
    for path in looked_at:
        tokens = re.split(r"[/_.\-\s]+", path.lower())[:-1]  # the last is the extension
        kind = " ".join(token for token in tokens if token in _KINDS)
        counts[kind] += 1
        examples.setdefault(kind, path)
        kinds_of[tuple(token for token in tokens if token not in _KINDS)].add(kind)
        folder = path.lower().partition("/")[0]
        if folder in _KINDS and "/" in path:
            folders[folder] += 1
    pairs = sum(len(kinds) > 1 for kinds in kinds_of.values())
    few = max(2, len(looked_at) // 10)
    if len(counts) < 2 or (pairs < few and sum(count >= 2 for count in folders.values()) < 2):
        return None
    found = ", ".join(f"{count:,} like {examples[kind]}" for kind, count in counts.most_common(3))
    among = "" if len(looked_at) == number else f" among {len(looked_at):,} names looked at"
    return f"{name}: holds pictures of different kinds ({found}{among}); --match PATTERN takes one kind"


def _sample(names: Iterable[str], number: int) -> Sequence[str]:
    if number <= _MOST_NAMES:
        return list(names)
    step = number // (_MOST_NAMES // _BLOCK)
    found: list[str] = []
    iterator = iter(names)
    while block := list(islice(iterator, _BLOCK)):
        found += block
        next(islice(iterator, step - _BLOCK, step - _BLOCK), None)  # passes over the rest of the step
    return found

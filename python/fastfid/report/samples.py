"""The sheets of pictures: random images, those that move the FID most, outliers, dropped modes, copies."""

import math

import numpy as np
from numpy.typing import NDArray

from fastfid.evaluation.result import Evaluation
from fastfid.metrics import label_of
from fastfid.metrics.leave_one_out import leave_one_out
from fastfid.report.album import LONGEST, Album, SideName
from fastfid.report.content import Entry, Notice, Section, Sheet, minus
from fastfid.report.neighbours import BESIDE, K, Neighbourhood, neighbourhood
from fastfid.report.sides import Side

__all__ = ["sections_of_samples"]

_SEED = 0
_NEAREST_REAL = f"the {BESIDE} nearest real images"
_NEAREST_GENERATED = f"the {BESIDE} nearest generated images"


def sections_of_samples(
    evaluation: Evaluation, real: Side, generated: Side, album: Album, pictures: int
) -> list[Section]:
    """Return the sections of sheets with up to `pictures` images each."""
    found = None
    if real.rows is not None and generated.rows is not None and min(len(real.rows), len(generated.rows)) > K:
        found = neighbourhood(real.rows, generated.rows)
    sheets = _Sheets(evaluation, real, generated, album, pictures, found)
    return [sheets.random(), sheets.influential(), sheets.outliers(), sheets.dropped(), sheets.copies()]


class _Sheets:
    """The sections, which share what is known of neighbours."""

    def __init__(
        self,
        evaluation: Evaluation,
        real: Side,
        generated: Side,
        album: Album,
        pictures: int,
        near: Neighbourhood | None,
    ):
        self._label = label_of("fid", [side.meta.get("extractor") for side in (evaluation.real, evaluation.fake)])
        self._real, self._generated = real, generated
        self._album = album
        self._pictures = pictures
        self._near = near

    def random(self) -> Section:
        """Return random images of both sides."""
        section = Section("random", "Random images")
        section.paragraphs.append(
            f"Pictures of this page have up to {LONGEST} pixels a side; the features are of the images as they are."
        )
        names: tuple[SideName, SideName] = ("generated", "real")
        for name in names:
            side = self._album.sides[name]
            if side.why_no_pictures:
                section.blocks.append(Notice(side.why_no_pictures))
            if side.rows is None:
                continue
            rng = np.random.default_rng(_SEED)
            rows = np.sort(rng.choice(len(side.rows), min(2 * self._pictures, len(side.rows)), replace=False))
            entries = [Entry(self._album.picture(name, row)) for row in rows]
            text = f"{len(rows):,} of the {len(side.rows):,} images, drawn with a fixed seed."
            section.blocks.append(Sheet(f"{name.capitalize()} images", text, entries))
        return section

    def influential(self) -> Section:
        """Return the generated images that raise and lower the FID most."""
        label = self._label
        section = Section("influence", f"Images that move the {label} most")
        rows = self._generated.rows
        if rows is None or len(rows) < 3:
            why = "holds statistics only" if rows is None else "has fewer than 3 images"
            section.blocks.append(Notice(f"{self._generated.name} {why}: no image can be left out."))
            return section
        section.paragraphs.append(
            f"Below each image stands by how much the {label} changes if this one image is left out, exactly. An image"
            f" whose loss lowers the {label} is one that raises it."
        )
        if len(rows) <= rows.shape[1]:
            section.paragraphs.append(
                f"With no more images ({len(rows):,}) than features ({rows.shape[1]:,}), leaving out any image also"
                f" raises the {label} by its bias, so compare the images with one another."
            )
        changes = leave_one_out(self._real.statistics, rows)
        order = np.argsort(changes, kind="stable")
        for title, chosen, text in (
            (f"They raise the {label} most", order, "Without them it would be the smallest."),
            (f"They lower the {label} most", order[::-1], "Without them it would be the largest."),
        ):
            entries = [
                self._entry("generated", row, f"{label} without it {minus(changes[row], '+.3g')}")
                for row in chosen[: self._pictures]
            ]
            section.blocks.append(Sheet(title, text, entries, self._beside(_NEAREST_REAL)))
        return section

    def outliers(self) -> Section:
        """Return the generated images outside every ball of a real one."""
        section = Section("outliers", "Generated images unlike any real one")
        if self._near is None:
            section.blocks.append(self._no_neighbours())
            return section
        rows, n = self._near.outside, len(self._near.balls)
        section.paragraphs.append(
            f"Every real image has a ball, which reaches to its {K}th nearest other real image. {len(rows):,} of"
            f" {n:,} generated images ({len(rows) / n:.1%}) are in no ball: the precision is {1 - len(rows) / n:.4g}."
        )
        if len(rows):
            distances = self._near.real_of_generated[1]
            entries = [self._entry("generated", row, f"nearest at {distances[row, 0]:.3g}") for row in self._some(rows)]
            text = "Those that are the farthest from their nearest real image."
            section.blocks.append(Sheet("In no ball of a real image", text, entries, self._beside(_NEAREST_REAL)))
        return section

    def dropped(self) -> Section:
        """Return the real images that no generated one is near."""
        section = Section("dropped", "Real images that no generated one is like")
        if self._near is None:
            section.blocks.append(self._no_neighbours())
            return section
        rows, m, n = self._near.not_covered, len(self._near.held), len(self._near.balls)
        # The K nearest of all other images are real ones: m - 1 real and n generated images in random order.
        by_chance = math.prod((m - 1 - i) / (m - 1 + n - i) for i in range(K))
        section.paragraphs.append(
            f"The balls of {len(rows):,} of {m:,} real images ({len(rows) / m:.1%}) hold no generated image: the"
            f" coverage is {1 - len(rows) / m:.4g}. Of two sets of one distribution, {by_chance:.1%} would hold none by"
            " chance. What is beyond are modes that the generator drops."
        )
        if len(rows):
            distances = self._near.generated_of_real[1][:, 0]
            entries = [
                self._entry("real", row, f"nearest at {distances[row]:.3g}, ball {self._near.radii[row]:.3g}")
                for row in self._some(rows)
            ]
            text = "Those whose nearest generated image is the most radii of their ball away."
            section.blocks.append(Sheet("Not covered", text, entries, self._beside(_NEAREST_GENERATED)))
        return section

    def copies(self) -> Section:
        """Return near-duplicates among the generated images, and of real ones."""
        section = Section("copies", "Near-duplicates")
        if self._near is None:
            section.blocks.append(self._no_neighbours())
            return section
        near = self._near.near
        section.paragraphs.append(
            f"1 % of the real images have another real one within {near:.3g}. Images that are nearer than that are"
            " called near-duplicates here. If generated images were like real ones, about 1 % of them would be, given"
            " as many images."
        )
        within, between = self._near.own_of_generated, self._near.real_of_generated
        section.blocks += [
            self._pairs("Within the generated set", "generated", within, near),
            self._pairs("Between the sets: memorised images", "real", between, near),
        ]
        return section

    def _pairs(
        self, title: str, other: SideName, found: tuple[NDArray[np.int64], NDArray[np.float64]], near: float
    ) -> Sheet:
        """Return the closest pairs of a generated image and another one."""
        indices, distances = found[0][:, 0], found[1][:, 0]
        n = len(distances)
        some, same = int((distances < near).sum()), int((distances == 0).sum())
        order = np.argsort(distances, kind="stable")
        entries: list[Entry] = []
        seen: set[tuple[int, int]] = set()
        for row in order.tolist():
            pair = (row, int(indices[row]))
            if other == "generated" and pair[::-1] in seen:
                continue
            seen.add(pair)
            facts = f"at {distances[row]:.3g}"
            beside = self._album.picture(other, pair[1], facts)
            entries.append(Entry(self._album.picture("generated", row), [beside]))
            if len(entries) == self._pictures:
                break
        text = (
            f"{some:,} of {n:,} generated images ({some / n:.1%}) have a near-duplicate, {same:,} of them one with the"
            f" same features. Below are the closest pairs: a generated image and the nearest"
            f" {'other generated' if other == 'generated' else other} one, with the distance."
        )
        return Sheet(title, text, entries)

    def _some(self, rows: NDArray[np.intp]) -> list[int]:
        found: list[int] = rows[: self._pictures].tolist()
        return found

    def _entry(self, side: SideName, row: int, facts: str) -> Entry:
        """Return an image with the nearest ones of the other side."""
        picture = self._album.picture(side, row, facts)
        if self._near is None:
            return Entry(picture)
        other: SideName = "real" if side == "generated" else "generated"
        indices, distances = self._near.real_of_generated if side == "generated" else self._near.generated_of_real
        beside = [
            self._album.picture(other, index, f"at {away:.3g}")
            for index, away in zip(indices[row], distances[row], strict=True)
        ]
        return Entry(picture, beside)

    def _beside(self, text: str) -> str:
        return "" if self._near is None else text

    def _no_neighbours(self) -> Notice:
        bare = [side.name for side in (self._real, self._generated) if side.rows is None]
        if bare:
            return Notice(f"{bare[0]} holds statistics only: neighbours need the features of both sets.")
        return Notice(f"Neighbours need more than {K} images on each side.")

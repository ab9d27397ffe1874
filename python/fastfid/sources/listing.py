"""Which names of a folder or an archive are pictures, and the count of what is passed over."""

from collections import Counter

from fastfid.sources.picture import IMAGE_EXTENSIONS

__all__ = ["PassedOver"]


class PassedOver:
    """Decides by its name what is a picture, and counts what is in a folder or an archive and is not read.

    Parameters
    ----------
    any_case : bool
        Whether ``A.PNG`` is a picture; pytorch-fid reads lower-case extensions only.

    Attributes
    ----------
    folders, links_and_devices, resource_forks : int
        Things that whoever lists the source has counted here.
    """

    def __init__(self, any_case: bool):
        self._any_case = any_case
        self._other_case = 0
        self._others: Counter[str] = Counter()
        self.folders = 0
        self.links_and_devices = 0
        self.resource_forks = 0

    def is_picture(self, name: str) -> bool:
        """Whether the name's extension is one that is read; counts it otherwise."""
        _, dot, extension = name.rpartition(".")
        if dot and extension in IMAGE_EXTENSIONS:
            return True
        if dot and extension.lower() in IMAGE_EXTENSIONS:
            if self._any_case:
                return True
            self._other_case += 1
        else:
            kind = dot + extension if dot and "/" not in extension else "no extension"
            # A hostile archive may hold a million extensions; a hundred kinds are enough to name three.
            self._others[kind if kind in self._others or len(self._others) < 100 else "others"] += 1
        return False

    def is_archived_picture(self, name: str) -> bool:
        """Like :meth:`is_picture`, for members of archives, where macOS adds a resource fork to each file."""
        if name.startswith("__MACOSX/"):
            self.resource_forks += 1
            return False
        return self.is_picture(name)

    def sentences(self, name: str) -> list[str]:
        """Return one sentence for each kind of thing passed over in the source called `name`."""
        return [f"{name}: {what}" for what in self._said()]

    def nothing_found(self, name: str) -> ValueError:
        """Return the error for a source without pictures."""
        there = "; ".join(self._said()) or "it is empty"
        return ValueError(f"{name}: no images found (extensions {', '.join(sorted(IMAGE_EXTENSIONS))}); {there}")

    def _said(self) -> list[str]:
        said = []
        if self._other_case:
            said.append(
                f"{_count(self._other_case, 'file')} with upper-case extensions not read (--any-case reads them)"
            )
        if self.folders:
            said.append(f"{_count(self.folders, 'sub-folder')} not entered (--recursive enters them)")
        if self._others:
            kinds = ", ".join(kind for kind, _ in self._others.most_common(3))
            more = ", ..." if len(self._others) > 3 else ""
            said.append(f"{_count(self._others.total(), 'other file')} not read ({kinds}{more})")
        if self.links_and_devices:
            said.append(f"{_count(self.links_and_devices, 'entry', 'entries')} not read: links, devices or pipes")
        if self.resource_forks:
            said.append(f"{_count(self.resource_forks, 'macOS resource fork')} (__MACOSX/) not read")
        return said


def _count(number: int, thing: str, things: str | None = None) -> str:
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"

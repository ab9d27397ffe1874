"""Pages of fastfid report for tests: two folders whose images are known, and a reader of the page."""

from html.parser import HTMLParser

import numpy as np
from PIL import Image

MARKUP = "<img src=x onerror=document.title=1>&amp;"


def save(folder, name, image):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(folder / f"{name}.png")


def two_folders(folder):
    """Make two folders of labelled images of 12 x 12; return them.

    Real: 30 dark images of the class "dark", 10 white ones of "light". Generated: 30 dark ones, of which number 3 is a
    copy of number 2, number 5 one of a real image, and number 7 is red, with markup in its name; and 2 of "light" that
    are dark too, so that white images are not covered.
    """
    rng = np.random.default_rng(0)

    def dark():
        return rng.integers(0, 60, (12, 12, 3), dtype=np.uint8)

    real, fake = folder / "real <b>", folder / "fake"
    images = [dark() for _ in range(30)]
    for number, image in enumerate(images):
        save(real / "dark", f"{number:02}", image)
    for number in range(10):
        save(real / "light", f"{number:02}", rng.integers(200, 256, (12, 12, 3), dtype=np.uint8))
    generated = [dark() for _ in range(30)]
    generated[3], generated[5] = generated[2], images[11]
    generated[7] = dark() // 8 + np.array([220, 0, 0], np.uint8)
    for number, image in enumerate(generated):
        save(fake / "dark", f"{number:02}{MARKUP if number == 7 else ''}", image)
    for number in range(2):
        save(fake / "light", f"{number:02}", dark())
    return real, fake


class PageReader(HTMLParser):
    """Reads a page.

    Attributes
    ----------
    elements : list of (str, dict of str to str)
        Every element with its attributes.
    text : str
        All text outside of style and script.
    """

    def __init__(self, path):
        super().__init__()
        self.elements, self._parts, self._inside = [], [], []
        self.source = path.read_text()
        self.feed(self.source)
        self.text = " ".join("".join(self._parts).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside.append(tag)
        self._parts.append(" ")
        self._parts.append(" ")

    def handle_endtag(self, tag):
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"style", "script"} & set(self._inside):
            self._parts.append(data)

    def all(self, tag):
        """Return the attributes of the elements of one kind."""
        return [attributes for name, attributes in self.elements if name == tag]

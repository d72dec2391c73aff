"""The files of our own pages, and the contrast of their colours."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.web import pages

FILES = sorted(path for path in pages.FOLDER.rglob("*") if path.suffix in {".css", ".js", ".html"})
BASE = (pages.FOLDER / "base.css").read_text()
GROUNDS = ("page", "raised", "sunken")


@pytest.mark.parametrize("name", ("base.css", "theme.js"))
def test_a_file_is_revalidated_and_compressed(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/docs/{name}")
    assert answer.status_code == 200
    assert answer.text == (pages.FOLDER / name).read_text()
    assert answer.headers["content-type"] == pages.TYPES["." + name.split(".")[1]].decode()
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["etag"].startswith("W/")
    again = client.get(f"/docs/{name}", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"].removeprefix("W/") == answer.headers["etag"].removeprefix("W/")
    head = client.head(f"/docs/{name}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == answer.headers["content-length"]


@pytest.mark.parametrize("name", ("nothing.css", "__init__.py", "%2e%2e", "..%2f..%2fapp.py"))
def test_no_other_file_is_shown(client: httpx.Client, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_a_file_names_no_other_host(file: Path) -> None:
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//|@import|url\((?!["']?data:)""", text)
    assert "innerHTML" not in text, "text of rows must not become HTML"


def colours() -> Iterator[tuple[str, str, str]]:
    """Yield name, light and dark value of each colour in base.css."""
    yield from re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", BASE)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2, from 1 to 21."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_text_has_enough_contrast_in_both_themes() -> None:
    found = {name: (light, dark) for name, light, dark in colours()}
    texts = ("text", "muted", "accent", "good", "warn", "bad", "other")
    pairs = [
        *((text, ground, 4.5) for text, ground in itertools.product(texts, GROUNDS)),
        *(("edge", ground, 3.0) for ground in GROUNDS),
    ]
    for one, ground, least in pairs:
        for theme in (0, 1):
            ratio = contrast(found[one][theme], found[ground][theme])
            assert ratio >= least, f"--{one} on --{ground}: {ratio:.2f}"
    for button in found["button"]:
        assert contrast("#ffffff", button) >= 4.5

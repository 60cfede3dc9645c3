"""Where torch for CPUs comes from: it is not on PyPI.

First what pip is configured with, else PyTorch's own index. That index serves the wheel only under
names that PyPI serves too, and the first index that knows a name is the only one asked for it; so
the one wheel is fetched from it here, by the digest that its page gives, and named by find-links.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from airgap import fsio
from airgap.errors import HostError
from airgap.events import Line
from bundler.demo.recipe import Place
from bundler.fetch.download import Item, fetch
from bundler.fetch.pip_config import sources

VERSION = "2.13.0+cpu"
PYTORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# Seconds to find out that an index cannot be reached from here.
_PROBE_SECONDS = 10.0
# An index page of torch lists a few thousand wheels.
_PAGE_BYTES = 8 * 1024 * 1024


def find_links(place: Place, index: str = PYTORCH_INDEX) -> tuple[str, ...]:
    """What the request must name as find-links; nothing where pip's own configuration has it.

    Raises HostError `demo.torch` when no source has it for this Python.
    """
    tag = "cp" + place.target.python.replace(".", "")
    pattern = f"torch-{VERSION}-{tag}-{tag}-*x86_64.whl"
    known = [*sources((), ()).find_links, str(place.folder / "wheels")]
    for folder in map(_folder, known):
        if folder is not None and any(folder.glob(pattern)):
            own = folder == place.folder / "wheels"
            place.sink(Line("torch", f"{VERSION} lies in {folder}"))
            return ("wheels",) if own else ()
    found = _on_page(f"{index}/torch/", tag)
    if found is None:
        raise _nowhere(place.target.python, [*known[:-1], index])
    _download(place, *found)
    return ("wheels",)


def _folder(link: str) -> Path | None:
    """A find-links entry as a folder of this machine; None for a page on the web."""
    parts = urlsplit(link)
    if parts.scheme not in ("", "file"):
        return None
    folder = Path(unquote(parts.path) if parts.scheme else link).expanduser()
    return folder if folder.is_dir() else None


def _on_page(page: str, tag: str) -> tuple[str, str] | None:
    """Address and SHA-256 of the wheel on an index page (PEP 503); None when it is not there."""
    import httpx2

    try:
        with httpx2.Client(follow_redirects=True, timeout=_PROBE_SECONDS) as client:
            answer = client.get(page, headers={"Accept": "text/html"})
    except (httpx2.HTTPError, httpx2.InvalidURL):
        return None
    if answer.status_code != 200 or len(answer.content) > _PAGE_BYTES:
        return None
    name = re.escape(f"torch-{VERSION}-{tag}-{tag}-").replace(r"\+", "(?:%2B|[+])")
    link = re.compile(rf'href="([^"#]*{name}[^"#]*x86_64\.whl)#sha256=([0-9a-f]{{64}})"')
    found = link.search(answer.text)
    return (urljoin(str(answer.url), found[1]), found[2]) if found else None


def _download(place: Place, url: str, sha256: str) -> None:
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    fetch([Item(url, sha256, None, name)], place.workspace.store, place.sink)
    wheels = place.folder / "wheels"
    fsio.make_dirs(wheels)
    with fsio.disk_errors(f"writing {wheels}"):
        os.link(place.workspace.store.blob_path(sha256), wheels / name)
        fsio.fsync_dir(wheels)


def _nowhere(python: str, asked: Sequence[str]) -> HostError:
    return HostError(
        "demo.torch",
        f"there is no torch {VERSION} for Python {python} to be had here",
        why=f"looked in {', '.join(asked)}",
        do="play the small demo: make demo ENGINE=llama.cpp; or try another Python "
        "(make PYTHON=python3.11 demo), or put that wheel into a folder and name it in pip's "
        "configuration: pip config set global.find-links FOLDER",
    )

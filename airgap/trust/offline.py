"""Keeps the HTTP client that python-tuf brings out of this program.

`tuf.ngclient` imports its default fetcher, and with it urllib3, although an `Updater` that is given
a fetcher never uses it. Here every file comes from memory (`airgap.trust.refresh`), and a program
that may not reach out is easier to trust when it holds nothing that could: so the module is
answered by this one before anybody imports it (docs/decisions/0057-no-http-client.md).
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

_MODULE = "tuf.ngclient.urllib3_fetcher"


class Urllib3Fetcher:
    """In the place of python-tuf's fetcher: cannot be made. Raises RuntimeError."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise RuntimeError("airgap has no HTTP client: name a fetcher")


def keep_out() -> None:
    """Call before the first import of `tuf.ngclient`. A module that is loaded already stays."""
    sys.modules.setdefault(_MODULE, sys.modules[__name__])

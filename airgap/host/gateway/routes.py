"""Which routes exist for clients: the OpenAI API's, by exact method and path, and no other.

Engines and gateways have many more (administration, files, development), and new ones with each
release: what is not listed here is not there.
"""

from __future__ import annotations

import re

from airgap.host.gateway.relay import Refused

_POST = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/embeddings"))
_MODELS = re.compile(r"/v1/models(/[A-Za-z0-9][A-Za-z0-9._-]{0,127})?")
# For whoever watches over the host, on loopback only.
_WATCH = frozenset(("/health", "/metrics", "/version"))


def is_openai(method: str, path: str) -> bool:
    """Whether clients may ask for it."""
    if method == "POST":
        return path in _POST
    return method in ("GET", "HEAD") and _MODELS.fullmatch(path) is not None


def admit(method: str, path: str, *, watch: bool) -> None:
    """Raise Refused 404 for every other route; `watch` admits health and metrics as well."""
    if is_openai(method, path) or (watch and method in ("GET", "HEAD") and path in _WATCH):
        return
    raise Refused(404, "there is no such route here")

"""No HTTP client comes into the isolated program (docs/decisions/0057)."""

from __future__ import annotations

import subprocess
import sys

_IMPORT_ALL = """
import importlib, pkgutil, sys
import airgap
for m in pkgutil.walk_packages(airgap.__path__, "airgap."):
    if not m.name.endswith("__main__"):
        importlib.import_module(m.name)
print(sorted(n for n in sys.modules if n.split(".")[0] in ("urllib3", "requests", "httpx2")))
"""
_DEFAULT_FETCHER = """
import airgap.trust.refresh, tempfile
from tuf.ngclient import Updater
try:
    Updater(tempfile.mkdtemp(), "https://localhost/metadata/", bootstrap=None)
except RuntimeError as e:
    print(e)
"""


def _python(code: str) -> str:
    argv = [sys.executable, "-c", code]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_no_module_of_airgap_brings_an_http_client() -> None:
    assert _python(_IMPORT_ALL) == "[]"


def test_positive_control_python_tuf_alone_brings_one() -> None:
    assert _python("import sys, tuf.ngclient; print('urllib3' in sys.modules)") == "True"


def test_python_tufs_own_fetcher_cannot_be_made() -> None:
    assert "no HTTP client" in _python(_DEFAULT_FETCHER)

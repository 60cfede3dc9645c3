"""REVIEW.html in a real browser: a hostile bundle's words run nothing and ask for nothing."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.unit.evidence.test_evidence import hostile_page

QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
# What the attacker would like to see happen.
ATTACK = "<script>document.title = 'owned'</script><img src=/stolen onerror='document.title += 1'>"


@dataclass
class Site:
    """Serves one page and remembers every path that was asked for."""

    page: bytes = b""
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def in_chromium(self, page: str, profile: Path) -> str:
        """The document after the browser has run whatever it would run."""
        self.page, self.asked = page.encode(), []
        url = f"http://127.0.0.1:{self.port}/REVIEW.html"
        argv = ["chromium", *QUIET, f"--user-data-dir={profile}", "--dump-dom", url]
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture
def site() -> Iterator[Site]:
    if shutil.which("chromium") is None:
        pytest.skip("not installed: chromium (make test installs it)")
    made = Site()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked.append(self.path)
            self.send_response(200 if self.path == "/REVIEW.html" else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(made.page if self.path == "/REVIEW.html" else b"")

        def log_message(self, *_args: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


def test_a_hostile_bundle_runs_nothing_and_loads_nothing(site: Site, tmp_path: Path) -> None:
    dom = site.in_chromium(hostile_page(), tmp_path)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in dom, "the attack is shown as text"
    assert "<title>Review of tiny 1</title>" in dom
    assert set(site.asked) <= {"/REVIEW.html", "/favicon.ico"}


def test_the_pages_own_rule_stops_what_escaping_would_let_through(
    site: Site, tmp_path: Path
) -> None:
    """Second wall: were one place not escaped, the Content-Security-Policy still holds."""
    page = hostile_page().replace("<header>", f"{ATTACK}<header>")
    dom = site.in_chromium(page, tmp_path)
    assert "<title>Review of tiny 1</title>" in dom
    assert "/stolen" not in site.asked


def test_positive_control_without_both_the_attack_succeeds(site: Site, tmp_path: Path) -> None:
    page = f"<!DOCTYPE html><html><head><title>t</title></head><body>{ATTACK}</body>"
    dom = site.in_chromium(page, tmp_path)
    assert "<title>owned" in dom
    assert "/stolen" in site.asked

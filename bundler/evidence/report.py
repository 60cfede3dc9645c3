"""REVIEW.html: manifest and evidence as one page that a security officer can read and print.

Deterministic, self-contained, without scripts. It never states signatures: it is what they cover.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from airgap import limits
from airgap.engines import registry as engines
from airgap.errors import IntegrityError
from airgap.format.artifacts import Adapter, Artifact, Image, Model, PlainFiles, Wheels
from airgap.format.evidence import ChatTemplate, Coverage, Finding, Findings
from airgap.format.manifest import Manifest
from airgap.format.policy import Policy
from airgap.format.types import SEVERITIES
from airgap.policy import judge_evidence, judge_manifest

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# Rows of one table. Nobody reads more on paper; the page says how many it leaves out.
MAX_ROWS = 5000
# Characters without a shape of their own, or that change how others read: controls, soft hyphen,
# direction marks, fillers, variation selectors, tags, surrogates, private use. A fixed list, not
# Python's Unicode tables: the officers' Python must render the same bytes as the builder's.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u08e2\u115f\u1160"
    "\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\uf8ff"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U0010ffff]"
)


@dataclass(frozen=True)
class Row:
    """A finding, and whether a waiver of the manifest names it."""

    finding: Finding
    waived: bool


@dataclass(frozen=True)
class ShownTemplate:
    """A chat template, and what the engine does with it."""

    template: ChatTemplate
    use: str
    starts: bool


def render(
    manifest: Manifest, digest: str, findings: Findings, coverage: Coverage, policy: Policy
) -> bytes:
    """The page as UTF-8. `digest` is the manifest's SHA-256; the caller computed it.

    Raises IntegrityError `report.too-large` beyond limits.MAX_REPORT_BYTES.
    """
    style = (Path(__file__).parent / "report.css").read_text("utf-8")
    page = _environment().get_template("report.html.j2")
    text = page.render(
        **_words(manifest, findings, coverage, policy),
        manifest_sha256=digest,
        style=_trusted(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )
    data = text.encode("utf-8")
    if len(data) > limits.MAX_REPORT_BYTES:
        raise IntegrityError(
            "report.too-large",
            f"the report would have {len(data):,} bytes",
            why=f"a report may have {limits.MAX_REPORT_BYTES:,}",
            do="split the bundle: people cannot review it as it is",
        )
    return data


def _words(
    manifest: Manifest, findings: Findings, coverage: Coverage, policy: Policy
) -> dict[str, Any]:
    """What the template names. The policy is asked as of the day the manifest was made, and not
    about the audience, which is the receiving host's to judge."""
    problems = [p for p in judge_manifest(policy, manifest) if p.id != "policy.audience"]
    problems += judge_evidence(policy, manifest, findings, coverage, manifest.created)
    files = [f for a in manifest.artifacts for f in a.files]
    return {
        "manifest": manifest,
        "findings": findings,
        "coverage": coverage,
        "policy": policy,
        "problems": problems,
        "models": [a for a in manifest.artifacts if isinstance(a, Model)],
        "adapters": [a for a in manifest.artifacts if isinstance(a, Adapter)],
        "images": [a for a in manifest.artifacts if isinstance(a, Image)],
        "plain_files": [a for a in manifest.artifacts if isinstance(a, PlainFiles)],
        "wheel_sets": [a for a in manifest.artifacts if isinstance(a, Wheels)],
        "total_files": len(files),
        "total_bytes": sum(f.size for f in files),
        "counts": _counts(findings),
        "rows": _rows(manifest, findings),
        "templates": _templates(manifest, findings),
        "adapters_on_bases": _bases(manifest),
        "arguments": _arguments(manifest),
        "uncovered": [c for c in coverage.files if c.verdict != "covered"],
        "max_rows": MAX_ROWS,
    }


# Fields of the serving plan that the page has words of its own for.
_TOLD = frozenset(
    (
        "engine",
        "runtime",
        "name",
        "port",
        "gateway",
        "failover",
        "adapters",
        "max_model_len",
        "check",
    )
)


def _arguments(manifest: Manifest) -> list[tuple[str, str]]:
    """What else the serving plan says, where it is not the default: key as in a request, value."""
    if manifest.serve is None:
        return []
    plan = [(f, getattr(manifest.serve, f.name)) for f in dataclasses.fields(manifest.serve)]
    said = [(f.name, v) for f, v in plan if f.name not in _TOLD and v != f.default]
    return [(n.replace("_", "-"), "yes" if v is True else str(v)) for n, v in said]


def _counts(findings: Findings) -> list[tuple[str, int]]:
    found = [f.severity for f in findings.findings]
    return [(s, found.count(s)) for s in reversed(SEVERITIES)]


def _rows(manifest: Manifest, findings: Findings) -> list[Row]:
    """Worst first, otherwise in the order of the evidence."""
    waived = {(w.finding, w.sha256) for w in manifest.waivers}
    rows = [Row(f, (f.id, f.sha256) in waived) for f in findings.findings]
    return sorted(rows, key=lambda r: -SEVERITIES.index(r.finding.severity))


def _templates(manifest: Manifest, findings: Findings) -> list[ShownTemplate]:
    """Those that an engine is started with first, otherwise in the order of the evidence."""
    artifacts = {a.name: a for a in manifest.artifacts}
    shown = []
    for template in findings.templates or ():
        use = _use(manifest, artifacts.get(template.artifact), template.sha256)
        shown.append(ShownTemplate(template, use, use == _STARTED))
    return sorted(shown, key=lambda t: not t.starts)


_STARTED = "The engine is started with this one."


def _use(manifest: Manifest, artifact: Artifact | None, sha256: str) -> str:
    """What the engine does with a template: some are given the text that the manifest names, others
    choose among what lies in the files."""
    serve = manifest.serve
    if isinstance(artifact, Adapter):
        return f"Not used: requests for this adapter go through the template of {artifact.base}."
    if serve is None:
        return "Nothing is served: whoever uses the files may use this one."
    if artifact != (model := manifest.model_to_serve()):
        return f"Not used: what is served is {model.name}."
    engine = engines.find(serve.engine)
    if engine is None or not engine.gives_template(serve) or model.chat_template is None:
        return "The manifest names none for the engine: it chooses by itself and may use this one."
    return _STARTED if model.chat_template == sha256 else "The engine is not started with this one."


def _bases(manifest: Manifest) -> list[tuple[str, Model]]:
    """(adapter's name, its base): requests for an adapter go through the base's template."""
    models = {a.name: a for a in manifest.artifacts if isinstance(a, Model)}
    adapters = [a for a in manifest.artifacts if isinstance(a, Adapter)]
    return [(a.name, models[a.base]) for a in adapters if a.base in models]


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["day"] = _day
    environment.globals["left_out"] = _left_out
    return environment


def visible(value: Any) -> Any:
    """Text in which nothing hides: characters without a shape become `[U+202E]`.

    Numbers and markup are left as they are; escaping for HTML comes after this.
    """
    if isinstance(value, PurePath):
        value = str(value)
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return _HIDDEN.sub(lambda m: f"[U+{ord(m.group()):04X}]", value)


def _day(seconds: int) -> str:
    when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return when.strftime("%Y-%m-%d %H:%M UTC")


def _left_out(rows: Sequence[object]) -> str:
    more = len(rows) - MAX_ROWS
    return f"{more:,} more rows are in the evidence and not shown here." if more > 0 else ""


def _trusted(style: str) -> Markup:
    """Our own style sheet, not to be escaped."""
    from markupsafe import Markup

    return Markup(style)  # noqa: S704 - a file of this package, not input

"""Evidence: deterministic, well-formed by its own standards, harmless to look at."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import re
from html.parser import HTMLParser
from pathlib import PurePosixPath

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from airgap.errors import FormatError, IntegrityError
from airgap.format.artifacts import Adapter, LockedFile, LockedModel, LockedWheels, Model, Wheels
from airgap.format.evidence import ChatTemplate, Coverage, Covered, Finding, Findings
from airgap.format.lock import Lock
from airgap.format.manifest import Evidence, Manifest
from airgap.format.policy import STRICT, Policy
from airgap.format.types import Check, FileEntry, Gateway, Serve, Target, Waiver
from bundler.evidence import report
from bundler.evidence.bom import make_bom
from bundler.evidence.provenance import make_provenance
from bundler.evidence.report import render
from tests.unit.host.parts import an_image

TARGET = Target(python="3.11", platform="x86_64-manylinux_2_36", accelerator="cpu")
WHEEL = PurePosixPath("Tiny_Wheel-1.0+cpu-py3-none-any.whl")
URL = "https://files.example/tiny.whl"
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> \u202egnp {{ 7*7 }}"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


LOCK = Lock(
    request=sha("request"),
    name="tiny",
    version="1",
    summary="a tiny one",
    release=1,
    created=1_790_000_000,
    not_after=1_800_000_000,
    audience=(),
    handling="",
    target=TARGET,
    artifacts=(
        LockedModel(
            name="model",
            source="local/tiny",
            revision="sha256-" + sha("x"),
            format="gguf",
            publisher="someone",
            licence="Apache-2.0",
            files=(
                LockedFile(path=PurePosixPath("LICENSE"), sha256=sha("l"), size=1, label="local"),
                LockedFile(path=PurePosixPath("m.gguf"), sha256=sha("m"), size=2, label="local"),
            ),
        ),
        LockedWheels(
            name="wheels",
            requirements=("tiny-wheel",),
            files=(LockedFile(path=WHEEL, sha256=sha("w"), size=3, label="an index", url=URL),),
        ),
    ),
)


def test_the_bill_of_materials_is_valid_and_the_same_every_time() -> None:
    made = make_bom(LOCK)
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(made.decode()) is None
    assert make_bom(LOCK) == made
    assert b"timestamp" not in made
    other = dataclasses.replace(LOCK, release=2)
    assert json.loads(make_bom(other))["serialNumber"] != json.loads(made)["serialNumber"]


def test_the_bill_of_materials_names_every_file_by_digest() -> None:
    bom = json.loads(make_bom(LOCK))
    text = json.dumps(bom)
    assert all(f.sha256 in text for a in LOCK.artifacts for f in a.files)
    by_type = {c["type"]: c for c in bom["components"]}
    model = by_type["machine-learning-model"]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert len(model["components"]) == 2
    wheel = by_type["library"]
    assert (wheel["name"], wheel["version"]) == ("tiny-wheel", "1.0+cpu")
    assert wheel["purl"].startswith("pkg:pypi/tiny-wheel@1.0")
    assert wheel["externalReferences"][0]["url"] == URL


def test_a_licence_that_is_no_spdx_name_is_kept_as_words() -> None:
    model = dataclasses.replace(LOCK.artifacts[0], licence="our own terms, ask legal")
    lock = dataclasses.replace(LOCK, artifacts=(model, LOCK.artifacts[1]))
    assert b"our own terms, ask legal" in make_bom(lock)


def test_provenance_names_lock_sources_and_tools_and_no_time() -> None:
    made = make_provenance(LOCK, {"uv": "0.13.9"})
    assert make_provenance(LOCK, {"uv": "0.13.9"}) == made
    statement = json.loads(made)
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert [s["digest"]["sha256"] for s in statement["subject"]] == [sha("l"), sha("m"), sha("w")]
    build = statement["predicate"]["buildDefinition"]
    digest = hashlib.sha256(LOCK.to_bytes()).hexdigest()
    assert build["resolvedDependencies"][0] == {"name": "lock", "digest": {"sha256": digest}}
    assert build["resolvedDependencies"][-1]["uri"] == URL
    assert "startedOn" not in made.decode()


def entry(path: str, content: str, size: int) -> FileEntry:
    return FileEntry(path=PurePosixPath(path), sha256=sha(content), blake3=sha("b"), size=size)


MODEL = Model(
    name="model",
    source="local/tiny",
    revision="r1",
    format="gguf",
    publisher="",
    licence="Apache-2.0",
    files=(entry("LICENSE", "l", 1), entry("m.gguf", "m", 2)),
)
WHEELS = Wheels(name="wheels", requirements=("tiny",), files=(entry(str(WHEEL), "w", 3),))
MANIFEST = Manifest(
    name="tiny",
    version="1",
    summary="a tiny one",
    release=1,
    created=1_790_000_000,
    not_after=1_800_000_000,
    audience=(),
    handling="",
    target=TARGET,
    artifacts=(MODEL, WHEELS),
    evidence=(Evidence(kind="findings", sha256=sha("f"), blake3=sha("b"), size=9),),
    serve=Serve(
        engine="llama.cpp", name="tiny", check=(Check(prompt="What is 2+2?", expect=r"\b4\b"),)
    ),
)
DIGEST = hashlib.sha256(MANIFEST.to_bytes()).hexdigest()
COVERED = Coverage(
    files=tuple(
        Covered(
            artifact=a.name,
            path=f.path,
            sha256=f.sha256,
            verdict="covered",
            kind="gguf",
            scanners=("s",),
        )
        for a in MANIFEST.artifacts
        for f in a.files
    )
)
CLEAN = Findings(tools=("s 1",), findings=())


def finding(**more: str) -> Finding:
    kwargs = {"id": "x.y", "severity": "high", "scanner": "s", "message": "bad"} | more
    path = PurePosixPath("m.gguf")
    return Finding(artifact="model", path=path, sha256=sha("m"), **kwargs)


def page(manifest: Manifest = MANIFEST, findings: Findings = CLEAN) -> str:
    return render(manifest, DIGEST, findings, COVERED, STRICT).decode("utf-8")


class Tags(HTMLParser):
    """Every tag and attribute of a page, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs


def test_the_report_is_the_same_every_time_and_whole() -> None:
    text = page()
    assert text == page()
    assert DIGEST in text
    for artifact in MANIFEST.artifacts:
        assert all(f.sha256 in text and html.escape(str(f.path)) in text for f in artifact.files)
    assert "Nothing here is against the policy" in text
    assert "What is 2+2?" in text


def test_the_report_says_all_of_the_serving_plan() -> None:
    """Whoever approves reads every argument that is not a default, and which port is open."""
    serve = Serve(
        engine="vllm",
        name="t",
        wheels="wheels",
        failover="spare",
        gateway=Gateway(wheels="gate", port=8443),
        enforce_eager=True,
        gpu_memory="0.85",
        tokenizer_mode="mistral",
    )
    artifacts = (dataclasses.replace(WHEELS, name="gate"), MODEL, WHEELS)
    text = page(dataclasses.replace(MANIFEST, serve=serve, artifacts=artifacts))
    for said in ("open to the network", "port 8443", "packages gate", "spare of the same"):
        assert said in text
    inside = dataclasses.replace(serve, gateway=Gateway(image="gateway-image"))
    artifacts = (dataclasses.replace(an_image(), name="gateway-image"), MODEL, WHEELS)
    within = page(dataclasses.replace(MANIFEST, serve=inside, artifacts=artifacts))
    assert "of the image gateway-image" in within and "of the packages" not in within
    for name, value in (("enforce-eager", "yes"), ("gpu-memory", "0.85"), ("dtype", "auto")):
        assert (f"<dt>{name}</dt><dd>{value}</dd>" in text) is (name != "dtype")
    assert "not reachable: loopback only" in page()


def test_the_report_runs_nothing_and_loads_nothing() -> None:
    tags = Tags(page())
    forbidden = {"script", "img", "link", "iframe", "object", "embed", "form", "a", "svg"}
    assert not tags.seen & forbidden
    names = {name for name, _ in tags.attributes}
    assert not names & {"src", "href", "style", "srcset"}
    assert not any(name.startswith("on") for name in names)


def test_the_style_is_the_one_that_the_page_allows() -> None:
    text = page()
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    allowed = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{allowed}'" in html.unescape(text)


def hostile_page() -> str:
    """Every place of the page that somebody else may fill, filled by an attacker."""
    hostile_line = HOSTILE.replace("\u202e", "")
    hostile_prose = HOSTILE.replace("\u202e", "\u200b")  # a joiner, which prose may hold
    manifest = dataclasses.replace(
        MANIFEST,
        summary=hostile_line,
        handling=hostile_line,
        serve=Serve(engine="vllm", name="t", check=(Check(prompt=hostile_prose, expect=HOSTILE),)),
        artifacts=(dataclasses.replace(MODEL, source=hostile_line, licence=hostile_line), WHEELS),
        waivers=(Waiver(finding="x.y", sha256=sha("m"), reason=hostile_line, until=1),),
    )
    found = finding(message=hostile_prose)
    return page(manifest, Findings(tools=(hostile_line,), findings=(found,)))


def test_hostile_text_is_shown_and_does_nothing() -> None:
    text = hostile_page()
    assert Tags(text).seen == Tags(
        page(findings=Findings(tools=(), findings=(finding(),)))
    ).seen | {"p"}
    assert "\u202e" not in text and "\u200b" not in text
    assert "[U+202E]" in text and "[U+200B]" in text
    assert "{{ 7*7 }}" in text
    assert "&lt;script&gt;" in text


def test_prompt_or_finding_that_turns_the_reading_direction_is_no_document() -> None:
    with pytest.raises(FormatError):
        Check(prompt=HOSTILE, expect="x")
    with pytest.raises(FormatError):
        finding(message=HOSTILE)


def test_findings_stand_worst_first_and_the_verdict_says_why() -> None:
    findings = (finding(severity="low", id="a.low"), finding(severity="critical", id="b.worst"))
    text = page(findings=Findings(tools=(), findings=findings))
    table = text[text.index("Findings: 2") :]
    assert table.index("b.worst") < table.index("a.low")
    assert "refuses this bundle: 1 reason" in text


def test_what_is_attested_is_shown_as_it_is_judged_with_the_keys() -> None:
    """The predicate that the policy asks for, not the words of the message."""
    keys = (sha("key one"), sha("key two"))
    one = dataclasses.replace(
        finding(id="image.attested", severity="info", message="attested"),
        details=keys,
        predicate="https://example.org/<b>scan</b>",
    )
    text = page(findings=Findings(tools=("s 1",), findings=(one,)))
    assert "attests <code>https://example.org/&lt;b&gt;scan&lt;/b&gt;</code>" in text
    assert all(k in text for k in keys)
    assert "attests" not in page(findings=Findings(tools=("s 1",), findings=(finding(),)))


def test_the_report_says_what_the_policy_asks_of_images() -> None:
    asked = Policy(image_keys=("PEM",), image_attestations=("https://slsa.dev/provenance/v1",))
    text = render(MANIFEST, DIGEST, CLEAN, COVERED, asked).decode("utf-8")
    assert "each signed by a key that the policy names, of which there are 1" in text
    assert "<code>https://slsa.dev/provenance/v1</code>" in text
    assert "<dt>Images</dt>" not in page()


def test_a_file_that_nobody_scanned_is_listed() -> None:
    files = (
        *COVERED.files[:-1],
        dataclasses.replace(
            COVERED.files[-1], verdict="not-covered", scanners=(), reason="it timed out"
        ),
    )
    text = render(MANIFEST, DIGEST, CLEAN, Coverage(files=files), STRICT).decode()
    assert "Not looked at: 1 of 3 files" in text
    assert "it timed out" in text


def test_rows_that_are_left_out_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "MAX_ROWS", 2)
    findings = tuple(finding(severity="info", id=f"f.n{i}") for i in range(5))
    text = page(findings=Findings(tools=(), findings=findings))
    assert "3 more rows" in text
    assert "f.n4" not in text


def test_a_report_nobody_could_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.limits, "MAX_REPORT_BYTES", 1000)
    with pytest.raises(IntegrityError, match=r"report\.too-large"):
        page()


def test_the_report_never_speaks_of_who_signed() -> None:
    assert not re.search(r"signed by|approved by", page(), re.IGNORECASE)


TEMPLATE = (
    "{% for m in messages %}\n  {{ m.content }}</pre><script>x</script>\u202e\u200b{% endfor %}"
)


def template(text: str, artifact: str = "model", path: str = "chat_template.jinja") -> ChatTemplate:
    return ChatTemplate(
        artifact=artifact, path=PurePosixPath(path), place="", sha256=sha(text), text=text
    )


def with_templates(
    *templates: ChatTemplate, started: str, adapter: bool = False, engine: str = "vllm"
) -> str:
    """The page of a model whose manifest names the template `started`."""
    model = dataclasses.replace(MODEL, chat_template=sha(started))
    tuned = Adapter(
        name="a-tuned",
        source="local/tuned",
        revision="r1",
        base="model",
        rank=8,
        publisher="",
        licence="",
        files=(entry("adapter_model.safetensors", "t", 3),),
    )
    more = (tuned,) if adapter else ()
    serve = Serve(engine=engine, name="t")
    manifest = dataclasses.replace(MANIFEST, artifacts=(*more, model, WHEELS), serve=serve)
    return page(manifest, Findings(tools=(), findings=(), templates=templates))


def chapter(text: str) -> str:
    return text[text.index("<h2>Chat templates") : text.index("<h2>Waivers")]


def test_chat_templates_are_shown_as_text_with_nothing_hidden() -> None:
    text = with_templates(template(TEMPLATE), started=TEMPLATE)
    tags = Tags(text)
    assert "script" not in tags.seen and "pre" in tags.seen
    shown = chapter(text)
    assert "&lt;/pre&gt;&lt;script&gt;x&lt;/script&gt;[U+202E][U+200B]" in shown
    assert "{% for m in messages %}\n  {{ m.content }}" in html.unescape(shown)
    assert sha(TEMPLATE) in shown
    assert shown.count("</pre>") == 1


def test_the_template_that_the_engine_is_started_with_is_told_from_the_others() -> None:
    other = template("{{ other }}", path="a.jinja")
    shown = chapter(with_templates(other, template(TEMPLATE), started=TEMPLATE))
    assert "Chat templates: 2" in shown
    mine, theirs = shown.index(sha(TEMPLATE)), shown.index(other.sha256)
    assert mine < shown.index("The engine is started with this one") < theirs
    assert theirs < shown.index("The engine is not started with this one")


def test_a_template_that_only_looks_like_the_approved_one_is_not_called_so() -> None:
    shown = chapter(with_templates(template(TEMPLATE + " "), started=TEMPLATE))
    assert "The engine is started with this one" not in shown


def test_a_template_is_not_said_to_be_unused_where_the_engine_chooses_by_itself() -> None:
    shown = chapter(with_templates(template(TEMPLATE), started=TEMPLATE, engine="llama.cpp"))
    assert "it chooses by itself and may use this one" in shown
    assert "is started with" not in shown


def test_a_template_of_a_model_that_is_not_served_is_not_called_the_engines() -> None:
    served = dataclasses.replace(MODEL, name="a-model")
    other = dataclasses.replace(MODEL, chat_template=sha(TEMPLATE))
    serve = Serve(engine="vllm", name="t", model="a-model")
    manifest = dataclasses.replace(MANIFEST, artifacts=(served, other, WHEELS), serve=serve)
    found = Findings(tools=(), findings=(), templates=(template(TEMPLATE),))
    shown = chapter(page(manifest, found))
    assert "Not used: what is served is a-model." in shown
    assert "is started with" not in shown


def test_an_adapters_own_template_is_not_used_and_the_bases_is_named() -> None:
    own = template(TEMPLATE, "a-tuned")
    shown = chapter(with_templates(own, template("{{ b }}"), started="{{ b }}", adapter=True))
    assert "Not used: requests for this adapter go through the template of model" in shown
    line = shown[shown.index("Requests for the adapter a-tuned") :]
    assert sha("{{ b }}") in line


def test_a_bundle_without_chat_templates_says_so() -> None:
    assert "None was found." in chapter(page())

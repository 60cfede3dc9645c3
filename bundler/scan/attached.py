"""What lies beside an image: signatures, attestations, bills of materials, and by whose word.

Everything here is unsigned as such: anybody who may write to the registry can attach anything. What
counts is what a key of the policy signed, and of which digest it speaks; where it was found, what
it is tagged or annotated as, says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from airgap.errors import FormatError
from airgap.format import oci
from airgap.format.evidence import Finding
from bundler.attachments import SBOMS, SIMPLE_SIGNING, STATEMENT
from bundler.scan import attestations, bounds, signatures, strictjson
from bundler.scan.attestations import Attested, Unproven
from bundler.scan.image_keys import Key
from bundler.scan.interface import ScanResult, Subject, Unscanned
from bundler.scan.memory import proven
from bundler.scan.report import Fault, finding, shown

NAME = "image"
FOLDER = "referrers"
# cosign notes in the open what an attestation is about; what is signed counts.
_LABEL = "predicateType"
# Simple signing knows no predicate: a signature is one of the image itself.
_SIMPLY = ""


@dataclass(frozen=True)
class _Attachment:
    """One of them: its manifest, and the files of its layers in order."""

    own: Subject
    manifest: oci.Manifest
    layers: tuple[Subject, ...]

    @property
    def is_sbom(self) -> bool:
        return any(d.media_type in SBOMS for d in self.manifest.layers)


class _Said:
    """Which keys say what of which digest, and in which file. `about`: the image's own digests;
    `sboms`: those of bills of materials beside it, which may be signed and nothing more."""

    def __init__(self, about: frozenset[str], sboms: frozenset[str]) -> None:
        self._about = about
        self._sboms = sboms
        self._by: dict[tuple[str, str], set[str]] = {}
        self._where: dict[tuple[str, str], set[str]] = {}

    def note(self, claim: Attested, where: Subject) -> bool:
        """Note what is said of digests that are ours; whether it is about any."""
        signed = claim.predicate in (_SIMPLY, signatures.SIGNED)
        ours = claim.subjects & (self._about | self._sboms if signed else self._about)
        for digest in ours:
            self._by.setdefault((digest, claim.predicate), set()).update(claim.keys)
            self._where.setdefault((digest, claim.predicate), set()).add(str(where.path))
        return bool(ours)

    def keys(self, about: Sequence[str], predicate: str) -> set[str]:
        """Who says that of one of `about`."""
        return {k for d in about for k in self._by.get((d, predicate), ())}

    def places(self, about: Sequence[str], predicate: str) -> list[str]:
        """Where they say it."""
        return sorted({p for d in about for p in self._where.get((d, predicate), ())})

    def predicates(self, about: Sequence[str]) -> list[str]:
        """What is attested of one of `about`."""
        return sorted({p for d, p in self._by if d in about} - {_SIMPLY})


def scan(image: Sequence[Subject], files: Sequence[Subject], keys: Sequence[Key]) -> ScanResult:
    """`image`: its manifest, then the index that names it, where there is one. `files`: all that
    lies beside it. Findings about the image stand at its manifest; with no keys there are none."""
    result = ScanResult()
    attached = _sound(files, result)
    if not keys:
        return result
    about = [s.sha256 for s in image]
    sboms = [a for a in attached if a.is_sbom]
    said = _Said(frozenset(about), frozenset(a.own.sha256 for a in sboms))
    for one in attached:
        for number, subject in enumerate(one.layers):
            result.findings += _hear(one, number, subject, keys, said)
    result.findings += _vouched(image[0], about, said, len(keys))
    for sbom in sboms:
        result.findings.append(_bill(sbom, about, said, len(keys)))
    return result


def _sound(files: Sequence[Subject], result: ScanResult) -> list[_Attachment]:
    """Those that are what their digest says; the others are refused, each whole."""
    out = []
    for digest in sorted({s.path.parts[1] for s in files}):
        mine = {"/".join(s.path.parts[2:]): s for s in files if s.path.parts[1] == digest}
        try:
            out.append(_attachment(digest, mine))
        except (Fault, FormatError) as e:
            refuse(result, mine.values(), None, e)
            continue
        result.covered |= {s.path for s in mine.values()}
    return out


def _attachment(digest: str, files: Mapping[str, Subject]) -> _Attachment:
    """Its files are exactly those that its manifest names, each at its place, and read as text."""
    own = files.get("manifest.json")
    if own is None or own.sha256 != digest or own.size > oci.MAX_MANIFEST_BYTES:
        raise Fault("image.referrer", f"{shown(digest)} is not the digest of its manifest")
    data = _bytes(own)
    manifest = oci.read_manifest(data, oci.media_type_of(data, "", default=oci.OCI_MANIFEST))
    layers = [f"layers/{i:03}" for i in range(len(manifest.layers))]
    wanted = dict(zip(layers, manifest.layers, strict=True)) | {"config.json": manifest.config}
    for path in sorted(wanted.keys() | files.keys() - {"manifest.json"}):
        told, found = wanted.get(path), files.get(path)
        if told is None or found is None or (found.sha256, found.size) != (told.sha256, told.size):
            raise Fault("image.referrer", f"{shown(path)} is not what the manifest names")
        _check_text(found)
    return _Attachment(own, manifest, tuple(files[p] for p in layers))


def _hear(
    one: _Attachment, number: int, subject: Subject, keys: Sequence[Key], said: _Said
) -> list[Finding]:
    """Note what a layer says and who says so; findings where that is nothing."""
    kind = one.manifest.layers[number].media_type
    if kind == SIMPLE_SIGNING:
        signature = one.manifest.layer_annotation(number, signatures.SIGNATURE) or ""
        if subject.size <= bounds.MAX_SIGNATURE_BYTES:
            digest, by = signatures.read(_bytes(subject), signature, keys)
            if said.note(Attested(by, _SIMPLY, frozenset([digest])), subject):
                return []
        text = f"none of the {len(keys)} keys that the policy names signed this image by it"
        return [finding(NAME, subject, "image.signature-unproven", "low", text)]
    if kind not in (*attestations.KINDS, STATEMENT):
        return []
    label = one.manifest.layer_annotation(number, _LABEL)
    try:
        attested = _attested(subject, kind, keys, said)
    except Unproven as e:
        called = f"; it calls itself {shown(label)}" if label else ""
        text = f"it attests nothing: {e}{called}"
        return [finding(NAME, subject, "image.attestation-unproven", "low", text)]
    if label and label != attested.predicate:
        text = f"labelled {shown(label)}, but signed as {shown(attested.predicate)}, which counts"
        return [finding(NAME, subject, "image.attestation-label", "low", text)]
    return []


def _attested(subject: Subject, kind: str, keys: Sequence[Key], said: _Said) -> Attested:
    """What is attested of this image, noted. Raises Unproven."""
    if kind == STATEMENT:
        raise Unproven("it is a statement that nobody signed")
    if subject.size > bounds.MAX_JSON_BYTES:
        raise Unproven(f"it has more than {bounds.MAX_JSON_BYTES} bytes")
    attested = attestations.read(_bytes(subject), kind, keys)
    if not said.note(attested, subject):
        raise Unproven("a key of the policy signed it, about something else than this image")
    return attested


def _vouched(own: Subject, about: Sequence[str], said: _Said, known: int) -> list[Finding]:
    """Signatures of the image, and attestations about it."""
    out = []
    signed = said.keys(about, _SIMPLY) | said.keys(about, signatures.SIGNED)
    if signed:
        text = f"signed by {_of(signed, known)}"
        out.append(finding(NAME, own, "image.signed", "info", text, tuple(sorted(signed))))
    for predicate in said.predicates(about):
        by = said.keys(about, predicate)
        text = f"attested by {_of(by, known)}, in {_in(said.places(about, predicate))}"
        details = tuple(sorted(by))
        out.append(finding(NAME, own, "image.attested", "info", text, details, predicate))
    return out


def _bill(sbom: _Attachment, about: Sequence[str], said: _Said, known: int) -> Finding:
    """Whether anybody vouches for a bill of materials that stands by itself. A signature is about
    that document; only a `subject` in the signed manifest says of which image it is."""
    mine = [sbom.own.sha256]
    by = said.keys(mine, _SIMPLY) | said.keys(mine, signatures.SIGNED)
    if not by:
        text = f"a bill of materials that none of the {known} keys of the policy signed"
        return finding(NAME, sbom.own, "image.sbom-unsigned", "low", text)
    tied = sbom.manifest.subject is not None and sbom.manifest.subject.sha256 in about
    whose = "it names this image" if tied else "nothing signed says that it is this image's"
    text = f"a bill of materials signed by {_of(by, known)}; {whose}"
    return finding(NAME, sbom.own, "image.sbom-signed", "info", text, tuple(sorted(by)))


def _of(keys: set[str], known: int) -> str:
    return f"{len(keys)} of the {known} keys that the policy names"


def _in(places: Sequence[str]) -> str:
    more = f" and {len(places) - 1} more" if len(places) > 1 else ""
    return f"{places[0]}{more}"


def _bytes(subject: Subject) -> bytes:
    return proven(subject.file, subject.sha256, subject.file.read_bytes())


def _check_text(subject: Subject) -> None:
    """JSON, or an SPDX document in its text form."""
    if subject.kind not in ("json", "text", "empty"):
        raise Fault("image.referrer", f"it is {subject.kind}, not JSON or text")
    if subject.kind == "json":
        try:
            strictjson.read(subject.file)
        except strictjson.Malformed as e:
            raise Fault("image.referrer", f"it is no strict JSON: {e}") from e
    proven(subject.file, subject.sha256, None)


def refuse(
    result: ScanResult, files: Iterable[Subject], about: Subject | None, e: Fault | FormatError
) -> None:
    """None of these files is covered; one finding, about one of them, says why."""
    id = e.id if isinstance(e, Fault) else "image.manifest"
    text = e.message if isinstance(e, Fault) else f"{e.where}: {e.why}"
    listed = list(files)
    result.findings.append(finding(NAME, about or listed[0], id, "high", text))
    result.unscanned += [Unscanned(s.path, "the image is not sound") for s in listed]

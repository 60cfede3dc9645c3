"""Signatures, attestations and bills of materials that a registry keeps beside an image.

Found by the referrers API (distribution specification 1.1), by its fallback tag `sha256-HEX`, and
by the tags that cosign writes: `sha256-HEX.sig`, `.att`, `.sbom`. Signatures of a bill of materials
lie beside it in the same ways, one level deeper, and no further. All are carried along as they are;
who signed is the scanner's to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from airgap.errors import FormatError, IntegrityError
from airgap.events import Line, Sink
from airgap.format import oci
from bundler.attachments import CARRIED, SBOMS, SIGNATURES
from bundler.fetch.oci.registry import Document, Registry

# Of one image: a signature of each of some publishers, attestations of a build, two SBOMs and their
# signatures.
MAX_REFERRERS = 64
# A large SBOM has 100 MB.
MAX_REFERRER_BYTES = 512 * 1024 * 1024
# Listed manifests that are read beside one image, whether they are carried or not.
_MAX_READ = 256
_COSIGN_SUFFIXES = (".sig", ".att", ".sbom")


@dataclass(frozen=True)
class Referrer:
    """One of them: its own manifest, which names the rest."""

    document: Document
    manifest: oci.Manifest


def find(registry: Registry, subjects: tuple[str, ...], sink: Sink) -> tuple[Referrer, ...]:
    """All that speak about one of `subjects` (SHA-256 of the index, of the manifest), by digest,
    and the signatures of those that are bills of materials.

    Raises IntegrityError when there are too many or they are too large, SourceError.
    """
    found: dict[str, Referrer] = {}
    left = iter(range(_MAX_READ))
    for subject in subjects:
        _take(found, registry, subject, sink, left)
    for sbom in [d for d, r in found.items() if _kinds(r.manifest) & set(SBOMS)]:
        _take(found, registry, sbom, sink, left, suffixes=(".sig",), carried=SIGNATURES)
    total = sum(d.size for r in found.values() for d in (r.manifest.config, *r.manifest.layers))
    if total > MAX_REFERRER_BYTES:
        raise _too_much(registry, f"they have {total:,} bytes, {MAX_REFERRER_BYTES:,} are allowed")
    return tuple(found[k] for k in sorted(found))


def _take(
    found: dict[str, Referrer],
    registry: Registry,
    subject: str,
    sink: Sink,
    left: Iterator[int],
    *,
    suffixes: tuple[str, ...] = _COSIGN_SUFFIXES,
    carried: tuple[str, ...] = CARRIED,
) -> None:
    """Put what speaks about `subject` into `found`; `left` counts what may be read."""
    for document in _documents(registry, subject, suffixes, sink):
        if next(left, None) is None:
            raise _too_much(registry, f"more than {_MAX_READ} were looked at")
        referrer = _read(document, subject, registry, sink, carried)
        if referrer is not None:
            found[document.sha256] = referrer
    if len(found) > MAX_REFERRERS:
        raise _too_much(registry, f"there are more than {MAX_REFERRERS}")


def _documents(
    registry: Registry, subject: str, suffixes: tuple[str, ...], sink: Sink
) -> Iterator[Document]:
    listed = registry.referrers(subject)
    if listed is None:
        tagged = registry.find_manifest(f"sha256-{subject}")
        if tagged is not None and tagged.media_type in oci.INDEX_TYPES:
            listed = oci.read_index(tagged.data)
    # One more than is taken, so that too many of a kind that is carried are told apart from many.
    for entry in (listed or ())[: MAX_REFERRERS + 1]:
        if entry.descriptor.media_type in oci.MANIFEST_TYPES:
            yield registry.manifest(f"sha256:{entry.descriptor.sha256}")
    unread = len((listed or ())[MAX_REFERRERS + 1 :])
    if unread:
        text = f"{unread} more beside {registry.reference.text}, which were not looked at"
        sink(Line("leave out", text[:300]))
    for suffix in suffixes:
        tagged = registry.find_manifest(f"sha256-{subject}{suffix}")
        if tagged is not None:
            yield tagged


def _read(
    document: Document, subject: str, registry: Registry, sink: Sink, carried: tuple[str, ...]
) -> Referrer | None:
    """None for what is not carried; a thing that speaks about another image is not of this one."""
    if document.media_type not in oci.MANIFEST_TYPES:
        return None
    manifest = oci.read_manifest(document.data, document.media_type)
    if manifest.subject is not None and manifest.subject.sha256 != subject:
        raise FormatError(
            "format.value", "subject", f"{document.sha256[:16]} speaks about another manifest"
        )
    kinds = _kinds(manifest)
    if not kinds or not kinds <= set(carried):
        other = ", ".join(sorted(ascii(k)[:60] for k in kinds - set(carried))) or "nothing"
        text = f"{document.sha256[:16]} beside {registry.reference.text} (it holds {other})"
        sink(Line("leave out", text[:300]))
        return None
    return Referrer(document, manifest)


def _kinds(manifest: oci.Manifest) -> set[str]:
    return {layer.media_type for layer in manifest.layers}


def _too_much(registry: Registry, why: str) -> IntegrityError:
    return IntegrityError(
        "source.referrers",
        f"{registry.reference.text} has more signatures and attestations beside it than is sane",
        why=why,
        do="copy the image to a registry of yours without them, and lock it from there",
    )

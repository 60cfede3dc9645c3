"""A container image by reference -> a locked image: one platform, every blob pinned by digest.

An index is read for the wanted platform; its raw bytes and the manifest's are kept as they came,
for their digests are what publishers sign. Layers are fetched later, like every other file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from airgap import fsio
from airgap.errors import FormatError, IntegrityError, SourceError
from airgap.events import Line, Sink
from airgap.format import oci
from airgap.format.artifacts import LockedFile, LockedImage
from airgap.format.request import ImageRequest
from airgap.store import Store
from bundler.fetch.download import Item, Options, fetch
from bundler.fetch.oci import reference as references
from bundler.fetch.oci import referrers
from bundler.fetch.oci.access import RegistryAccess
from bundler.fetch.oci.referrers import Referrer
from bundler.fetch.oci.registry import Document, Registry, access_to


def lock_image(
    request: ImageRequest, store: Store, sink: Sink, options: Options | None = None
) -> LockedImage:
    """Pin an image. Its manifest, configuration and signatures are in the store afterwards.

    Raises UsageError `request.reference`, SourceError, IntegrityError `source.*` or FormatError
    where the registry's documents are not sound.
    """
    reference = references.parse(request.reference)
    registry = Registry(reference, insecure=request.insecure, sink=sink)
    try:
        return _lock(request, registry, store, sink, options)
    except FormatError as e:
        raise _unsound(reference.text, request.platform, e) from e


@dataclass(frozen=True)
class Seen:
    """An image as its registry describes it: what a lock would pin, and its configuration."""

    artifact: LockedImage
    config: bytes


def see_image(request: ImageRequest, sink: Sink) -> Seen:
    """Look at an image. Nothing comes into the store. Raises as `lock_image`."""
    reference = references.parse(request.reference)
    registry = Registry(reference, insecure=request.insecure, sink=sink)
    try:
        found = _describe(request, registry)
        config = registry.blob(found.manifest.config, "the image's configuration")
        _check_config(config, found.manifest, request.platform)
        return Seen(_artifact(request, registry, found, _attached(registry, found, sink)), config)
    except FormatError as e:
        raise _unsound(reference.text, request.platform, e) from e


@dataclass(frozen=True)
class _Described:
    """`own` is the manifest of the platform, `index` what named it, if anything did."""

    index: Document | None
    own: Document
    manifest: oci.Manifest


def _describe(request: ImageRequest, registry: Registry) -> _Described:
    top = registry.manifest(registry.reference.wanted)
    index = top if top.media_type in oci.INDEX_TYPES else None
    own = _pick(registry, index, request.platform) if index else top
    manifest = oci.read_manifest(own.data, own.media_type)
    oci.check_image(manifest)
    return _Described(index, own, manifest)


def _attached(registry: Registry, found: _Described, sink: Sink) -> tuple[Referrer, ...]:
    documents = [d for d in (found.index, found.own) if d is not None]
    return referrers.find(registry, tuple(dict.fromkeys(d.sha256 for d in documents)), sink)


def _lock(
    request: ImageRequest, registry: Registry, store: Store, sink: Sink, options: Options | None
) -> LockedImage:
    found = _describe(request, registry)
    _fetch_config(registry, found.manifest, request.platform, store, sink, options)
    attached = _attached(registry, found, sink)
    locked = _artifact(request, registry, found, attached)
    _keep(found, attached, store)
    size = sum(f.size for f in locked.files)
    signed = f", {len(attached)} signatures and attestations" if attached else ""
    layers = len(found.manifest.layers)
    sink(Line("image", f"{locked.reference}: {layers} layers, {size:,} bytes{signed}"))
    return locked


def _artifact(
    request: ImageRequest, registry: Registry, found: _Described, attached: Sequence[Referrer]
) -> LockedImage:
    files = [_document("manifest.json", found.own, registry)]
    if found.index:
        files.append(_document("index.json", found.index, registry))
    files += _blobs("", found.manifest, registry)
    for one in attached:
        files += _referrer(one, registry)
    return LockedImage(
        name=request.name,
        reference=registry.reference.text,
        platform=request.platform,
        digest=found.own.sha256,
        media_type=found.own.media_type,
        files=tuple(sorted(files, key=lambda f: str(f.path))),
    )


def _pick(registry: Registry, index: Document, platform: str) -> Document:
    """The manifest of the platform: exactly one, of the size and type that the index says."""
    entries = oci.read_index(index.data)
    found = [e for e in entries if oci.same_platform(platform, e.platform)]
    if len(found) != 1:
        have = ", ".join(sorted({ascii(e.platform)[1:41] for e in entries if e.platform})) or "none"
        raise SourceError(
            "source.platform",
            f"{registry.reference.text} has {len(found)} images for {platform}, not one",
            why=f"it is an index of: {have[:200]}",
            do="name another platform, or the digest of one of its images as NAME@sha256:...",
        )
    told = found[0].descriptor
    if told.media_type in oci.INDEX_TYPES:
        raise FormatError("format.value", "manifests", "an index lies within the index")
    own = registry.manifest(f"sha256:{told.sha256}")
    if (len(own.data), own.media_type) != (told.size, told.media_type):
        raise FormatError(
            "format.value", "manifests", "the index says another size or type than the manifest has"
        )
    return own


def _fetch_config(
    registry: Registry,
    manifest: oci.Manifest,
    platform: str,
    store: Store,
    sink: Sink,
    options: Options | None,
) -> None:
    told = manifest.config
    url = registry.blob_url(told.sha256)
    item = Item(url, told.sha256, told.size, "config.json", access=registry.access)
    fetch([item], store, sink, options=options)
    with fsio.disk_errors("reading the image's configuration"):
        data = store.blob_path(told.sha256).read_bytes()
    _check_config(data, manifest, platform)


def _check_config(data: bytes, manifest: oci.Manifest, platform: str) -> None:
    """An index may say anything of a platform; the configuration is what the image was built as."""
    config = oci.read_config(data)
    if not oci.same_platform(platform, config.platform):
        raise FormatError(
            "format.value", "config", f"the image is for {ascii(config.platform)[:60]}"
        )
    if len(config.diff_ids) != len(manifest.layers):
        raise FormatError(
            "format.value",
            "config",
            f"it names {len(config.diff_ids)} layers, the manifest {len(manifest.layers)}",
        )


def _keep(found: _Described, attached: Sequence[Referrer], store: Store) -> None:
    """Documents whose bytes we have: into the store as they are."""
    for document in (found.own, found.index, *(r.document for r in attached)):
        if document is not None and not store.has(document.sha256, len(document.data)):
            store.add_bytes(document.data)


def _document(path: str, document: Document, registry: Registry) -> LockedFile:
    return LockedFile(
        path=PurePosixPath(path),
        sha256=document.sha256,
        size=len(document.data),
        label=registry.reference.text,
        url=registry.manifest_url(f"sha256:{document.sha256}"),
    )


def _blobs(folder: str, manifest: oci.Manifest, registry: Registry) -> Iterator[LockedFile]:
    named = [("config.json", manifest.config)]
    named += [(f"layers/{i:03}", layer) for i, layer in enumerate(manifest.layers)]
    for path, told in named:
        yield LockedFile(
            path=PurePosixPath(folder, path),
            sha256=told.sha256,
            size=told.size,
            label=registry.reference.text,
            url=registry.blob_url(told.sha256),
        )


def _referrer(one: Referrer, registry: Registry) -> Iterator[LockedFile]:
    folder = f"referrers/{one.document.sha256}"
    yield _document(f"{folder}/manifest.json", one.document, registry)
    yield from _blobs(folder, one.manifest, registry)


def image_access(image: LockedImage) -> RegistryAccess:
    """Access for fetching the blobs of a locked image, by this user's credentials."""
    reference = references.parse(image.reference)
    url = urlsplit(next(f.url for f in image.files if f.url is not None))
    return access_to(f"{url.scheme}://{url.netloc}", reference)


def image_items(image: LockedImage) -> list[Item]:
    """What `fetch` brings of a locked image: layers that lie in it twice, once."""
    access = image_access(image)
    items: dict[str, Item] = {}
    for f in image.files:
        if f.url is not None:
            label = f"{image.name}/{f.path}"
            items.setdefault(f.sha256, Item(f.url, f.sha256, f.size, label, access=access))
    return list(items.values())


def _unsound(reference: str, platform: str, e: FormatError) -> IntegrityError:
    return IntegrityError(
        "source.image",
        f"{reference} is not a sound image for {platform}",
        why=f"{e.where}: {e.why}" if e.where else e.why,
        do="choose another image, or tell its publisher",
    )

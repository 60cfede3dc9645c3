"""The gate on images: a clean one is covered file by file, a hostile one is refused."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from airgap.format import oci
from airgap.format.evidence import Coverage, Findings
from bundler.scan import bounds, gate, strictjson
from tests.unit.images.maker import Made, encode, sha, tar_of

TAR = tar_of({"./hello": b"hello" * 999, "etc/.wh.gone": b"", "etc/.wh..wh..opq": b""})


def put(folder: Path, files: dict[str, bytes]) -> gate.ScanArtifact:
    scanned = []
    for path, data in sorted(files.items()):
        file = folder / sha(data)
        file.write_bytes(data)
        scanned.append(gate.ScanFile(PurePosixPath(path), sha(data), len(data), file))
    return gate.ScanArtifact("image", "image", tuple(scanned))


def files_of(made: Made, digest: str, index: str | None = None) -> dict[str, bytes]:
    """The files that the lock would name."""
    kind, data = made.manifests[f"sha256:{digest}"]
    manifest = oci.read_manifest(data, kind)
    out = {"manifest.json": data, "config.json": made.blobs[manifest.config.sha256]}
    if index:
        out["index.json"] = made.manifests[f"sha256:{index}"][1]
    for i, layer in enumerate(manifest.layers):
        out[f"layers/{i:03}"] = made.blobs[layer.sha256]
    return out


def look(
    folder: Path, files: dict[str, bytes], keys: tuple[str, ...] = ()
) -> tuple[Findings, Coverage]:
    return gate.scan([put(folder, files)], image_keys=keys)


def refused(found: Findings, coverage: Coverage, path: str) -> list[str]:
    """Ids of the severe findings; the named file must not pass as covered unless one is there."""
    severe = [f.id for f in found.findings if f.severity in ("medium", "high", "critical")]
    verdict = {str(c.path): c.verdict for c in coverage.files}[path]
    assert severe or verdict == "not-covered"
    return severe


@pytest.mark.parametrize("packing", ["gzip", "zstd", "tar"])
def test_clean_image_is_covered_whole(tmp_path: Path, packing: str) -> None:
    made = Made()
    own = made.image(TAR, tar_of({"b": b"b"}), packing=packing)
    index = made.index({"linux/amd64": own})
    found, coverage = look(tmp_path, files_of(made, own, index))
    assert [(str(c.path), c.verdict) for c in coverage.files] == [
        (p, "covered")
        for p in ("config.json", "index.json", "layers/000", "layers/001", "manifest.json")
    ]
    assert [(f.id, f.severity) for f in found.findings] == [("image.runs", "info")]


def test_same_image_same_evidence(tmp_path: Path) -> None:
    made = Made()
    files = files_of(made, made.image(TAR))
    first, second = look(tmp_path, files), look(tmp_path, files)
    assert [d.to_bytes() for d in first] == [d.to_bytes() for d in second]


def header(name: str, kind: bytes, **more: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in more.items():
        setattr(info, key, value)
    return info


HOSTILE = {
    "climbs": (tar_of({"a/../../etc/passwd": b"x"}), "image.path"),
    "hard link climbs": (
        tar_of({}, header("a", tarfile.LNKTYPE, linkname="../../etc/passwd")),
        "image.path",
    ),
    "whiteout of the parent": (tar_of({"etc/.wh...": b""}), "image.path"),
    "whiteout of nothing": (tar_of({"etc/.wh.": b""}), "image.path"),
    "block device": (tar_of({}, header("dev/sda", tarfile.BLKTYPE, devmajor=8)), "image.device"),
    "character device": (tar_of({}, header("dev/mem", tarfile.CHRTYPE)), "image.device"),
    "no tar": (b"this is no tar at all" * 100, "image.layer"),
    "cut within a member": (TAR[:700], "image.layer"),
    "something behind the end": (TAR + b"\x01" * 512, "image.layer"),
    "header of 2 MiB": (
        tar_of({"a" * (2 * 1024 * 1024): b""}),
        "image.layer",
    ),
    "unknown type": (tar_of({}, header("a", b"V")), "image.layer"),
    "sparse": (
        tar_of({}, header("a", tarfile.REGTYPE, pax_headers={"GNU.sparse.major": "1"})),
        "image.layer",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_layer_is_refused(tmp_path: Path, name: str) -> None:
    tar, id = HOSTILE[name]
    made = Made()
    found, coverage = look(tmp_path, files_of(made, made.image(tar)))
    assert id in refused(found, coverage, "layers/000")


def test_setuid_files_are_told_and_do_not_refuse(tmp_path: Path) -> None:
    made = Made()
    tar = tar_of({}, header("usr/bin/su", tarfile.REGTYPE, mode=0o4755))
    found, coverage = look(tmp_path, files_of(made, made.image(tar)))
    assert [(f.id, f.severity) for f in found.findings if f.id == "image.setuid"] == [
        ("image.setuid", "info")
    ]
    assert {c.verdict for c in coverage.files} == {"covered"}


def packed(data: bytes) -> Callable[[Made], str]:
    """An image whose only layer is `data` as it stands, called gzip, of the tar TAR."""

    def make(made: Made) -> str:
        def swap(manifest: dict[str, list[object]]) -> None:
            kind = "application/vnd.oci.image.layer.v1.tar+gzip"
            manifest["layers"] = [made.descriptor(kind, data)]

        return made.image(TAR, change=swap)

    return make


PACKED = gzip.compress(TAR, mtime=0)


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (gzip.compress(tar_of({"other": b"o"})), "image.diff-id"),
        (PACKED[:-9], "image.layer"),
        (PACKED[:-4] + b"\x00\x00\x00\x00", "image.layer"),
        (PACKED + b"trailing", "image.layer"),
        (TAR, "image.layer"),
    ],
    ids=["another layer", "cut", "wrong crc", "trailing bytes", "not gzip at all"],
)
def test_layer_that_is_not_what_it_says_is_refused(tmp_path: Path, data: bytes, id: str) -> None:
    made = Made()
    found, coverage = look(tmp_path, files_of(made, packed(data)(made)))
    assert id in refused(found, coverage, "layers/000")


def test_layer_in_two_gzip_members_is_one_layer(tmp_path: Path) -> None:
    data = gzip.compress(TAR[:900], mtime=0) + gzip.compress(TAR[900:], mtime=0)
    made = Made()
    _, coverage = look(tmp_path, files_of(made, packed(data)(made)))
    assert {c.verdict for c in coverage.files} == {"covered"}


def test_layer_that_unpacks_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "LAYER_RATIO_FLOOR_BYTES", 1024 * 1024)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        big = tarfile.TarInfo("zeros")
        big.size = 8 * 1024 * 1024
        tar.addfile(big, io.BytesIO(bytes(big.size)))
    made = Made()
    found, coverage = look(tmp_path, files_of(made, made.image(out.getvalue())))
    assert "image.bomb" in refused(found, coverage, "layers/000")


def test_configuration_of_another_image_is_refused(tmp_path: Path) -> None:
    made = Made()
    files = files_of(made, made.image(TAR))
    other = made.image(tar_of({"x": b"y"}))
    files["config.json"] = files_of(made, other)["config.json"]
    found, coverage = look(tmp_path, files)
    assert "image.manifest" in refused(found, coverage, "layers/000")


def test_index_that_names_another_platform_is_refused(tmp_path: Path) -> None:
    made = Made()
    own = made.image(TAR)
    found, coverage = look(tmp_path, files_of(made, own, made.index({"linux/arm64": own})))
    assert "image.platform" in refused(found, coverage, "layers/000")


def test_missing_and_extra_files_are_refused(tmp_path: Path) -> None:
    made = Made()
    files = files_of(made, made.image(TAR))
    found, coverage = look(tmp_path, {**files, "layers/001": TAR})
    assert "image.manifest" in refused(found, coverage, "layers/001")
    files.pop("layers/000")
    found, coverage = look(tmp_path, files)
    assert "image.manifest" in refused(found, coverage, "config.json")


def test_configuration_with_a_layer_too_many_is_refused(tmp_path: Path) -> None:
    made = Made()
    ids = {"rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(TAR)}"] * 2}}
    found, coverage = look(tmp_path, files_of(made, made.image(TAR, config=ids)))
    assert "image.config" in refused(found, coverage, "layers/000")


def test_referrer_that_is_no_text_is_refused(tmp_path: Path) -> None:
    made = Made()
    files = files_of(made, made.image(TAR))
    layer = made.descriptor("application/spdx+json", b"\x7fELF" + bytes(99))
    document = {
        "schemaVersion": 2,
        "mediaType": oci.OCI_MANIFEST,
        "config": made.descriptor("application/vnd.oci.empty.v1+json", b"{}"),
        "layers": [layer],
    }
    folder = f"referrers/{sha(encode(document))}"
    files[f"{folder}/manifest.json"] = encode(document)
    files[f"{folder}/config.json"] = b"{}"
    files[f"{folder}/layers/000"] = b"\x7fELF" + bytes(99)
    found, coverage = look(tmp_path, files)
    assert "image.referrer" in refused(found, coverage, f"{folder}/layers/000")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (["PATH=/opt/venv/bin:/usr/bin", "LD_LIBRARY_PATH=/usr/local/cuda/lib64"], []),
        (["PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"], []),
        (["LD_PRELOAD=/usr/lib/libtcmalloc.so.4"], [("image.environment", "low")]),
        (["VLLM_SERVER_DEV_MODE=1", "PYTHONPATH=/x"], [("image.environment", "low")]),
        (["LITELLM_NON_ROOT=true"], [("image.environment", "low")]),
        (["https_proxy=http://x"], [("image.environment", "low")]),
        (["DATABASE_URL_HINT=x", "NO_PROXY=x"], []),
        (["PATH=/tmp:/usr/bin"], [("image.search-path", "high")]),
        (["PATH=bin:/usr/bin"], [("image.search-path", "high")]),
        (["PATH=/usr/bin", "PATH=/home/x/bin"], [("image.search-path", "high")]),
    ],
)
def test_what_an_image_has_its_programs_load_is_told(
    tmp_path: Path, variables: list[str], expected: list[tuple[str, str]]
) -> None:
    made = Made()
    own = made.image(TAR, config={"config": {"Cmd": ["/hello"], "Env": variables}})
    found, _ = look(tmp_path, files_of(made, own))
    assert [(f.id, f.severity) for f in found.findings if f.id != "image.runs"] == expected


def test_index_that_calls_itself_a_manifest_is_refused(tmp_path: Path) -> None:
    """One document that is read in two ways (CVE-2021-41190)."""
    made = Made()
    own = made.image(TAR)
    files = files_of(made, own, made.index({"linux/amd64": own}))
    both = {**strictjson.decode(files["index.json"]), "mediaType": oci.OCI_MANIFEST}
    found, coverage = look(tmp_path, {**files, "index.json": encode(both)})
    assert refused(found, coverage, "index.json") == ["image.manifest"]

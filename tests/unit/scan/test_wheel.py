"""Wheels: RECORD that lies, zips that two readers read differently, code that starts by itself."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bundler.scan import bounds
from bundler.scan.interface import ScanResult
from bundler.scan.wheel import WheelScanner
from tests.unit.scan.makers import WHEEL_NAME, ids, look, make_zip, record_line, severity, wheel

INFO = "tiny-1.0.dist-info"


def scan(tmp_path: Path, data: bytes, name: str = WHEEL_NAME) -> ScanResult:
    return look(WheelScanner(), tmp_path, {name: data}, "wheels")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_sound_wheel_is_covered(tmp_path: Path, method: int) -> None:
    result = scan(tmp_path, wheel(method=method))
    assert result.covered and not result.findings and not result.unscanned


def test_wheel_written_to_a_stream_is_covered(tmp_path: Path) -> None:
    """Its members have sizes behind their data, not before."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.data += bytes(data)  # type: ignore[call-overload]
            return len(bytes(data))  # type: ignore[call-overload]

    pipe = Pipe()
    with zipfile.ZipFile(io.BytesIO(wheel())) as old, zipfile.ZipFile(pipe, "w") as new:
        for info in old.infolist():
            new.writestr(zipfile.ZipInfo(info.filename), old.read(info))
    result = scan(tmp_path, bytes(pipe.data))
    assert result.covered and not result.findings


@pytest.mark.parametrize("name", ["tiny.pth", "tiny-1.0.data/purelib/x.pth", "a/b.PTH", "x.start"])
def test_file_that_runs_at_every_start_is_found_with_its_digest(tmp_path: Path, name: str) -> None:
    result = scan(tmp_path, wheel({name: b"import os"}))
    (found,) = result.findings
    assert (found.id, found.severity) == ("wheel.pth", "high")
    assert found.details == (hashlib.sha256(b"import os").hexdigest(),)


@pytest.mark.parametrize(
    "name",
    [
        "sitecustomize.py",
        "usercustomize/__init__.py",
        "tiny-1.0.data/platlib/sitecustomize.py",
        "tiny-1.0.data/data/lib/python3.12/site-packages/usercustomize.py",
        "SiteCustomize.cpython-312-x86_64-linux-gnu.so",
    ],
)
def test_module_imported_at_every_start_is_refused(tmp_path: Path, name: str) -> None:
    assert severity(scan(tmp_path, wheel({name: b"x"})), "wheel.sitecustomize") == "high"


def test_command_that_takes_the_interpreters_place_is_refused(tmp_path: Path) -> None:
    assert ids(scan(tmp_path, wheel({"tiny-1.0.data/scripts/python3": b"x"}))) == {"wheel.script"}
    points = {f"{INFO}/entry_points.txt": b"[console_scripts]\npip = tiny:main\n"}
    assert ids(scan(tmp_path, wheel(points))) == {"wheel.script"}


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (wheel(replace={"tiny/__init__.py": b"x = 2\n"}), "wheel.record-mismatch"),
        (wheel(unlisted={"tiny/more.py": b""}), "wheel.record-extra"),
        (wheel(record=f"{INFO}/RECORD,,\n"), "wheel.record-extra"),
        (wheel(record="a,b\n"), "wheel.record"),
        (wheel(record='"a\n'), "wheel.record"),
        (wheel(record="tiny/__init__.py,md5=AAAA,6\n"), "wheel.record"),
        (wheel(record="tiny/__init__.py,sha256=***,6\n"), "wheel.record"),
        (wheel(record="tiny/__init__.py,sha256=AAAA,-6\n"), "wheel.record"),
        (wheel(replace={f"{INFO}/WHEEL": b"Wheel-Version: 2.0\n"}), "wheel.version"),
        (wheel(replace={f"{INFO}/METADATA": b"Name: other\nVersion: 1.0\n"}), "wheel.identity"),
        (wheel(replace={f"{INFO}/METADATA": b"Name: tiny\nVersion: 2\n"}), "wheel.identity"),
        (wheel({"other-2.dist-info/METADATA": b""}), "wheel.dist-info"),
        (make_zip({"tiny/__init__.py": b""}), "wheel.dist-info"),
        (wheel({"../escape.py": b""}), "wheel.path"),
        (wheel({"/etc/escape": b""}), "wheel.path"),
        (wheel({"a/./b.py": b""}), "wheel.path"),
        (wheel({"a//b.py": b""}), "wheel.path"),
        (wheel({"C:/x.py": b""}), "wheel.path"),
        (wheel({"a\\..\\b.py": b""}), "wheel.path"),
        (wheel({"a\u202eb.py": b""}), "wheel.path"),
        (b"prefix" + wheel(), "wheel.hidden-bytes"),
        (wheel() + b"suffix", "wheel.hidden-bytes"),
        (b"not a zip at all, but long enough", "wheel.hidden-bytes"),
        (b"", "wheel.not-a-zip"),
        (make_zip({}), "wheel.empty"),
    ],
)
def test_unsound_wheel_is_refused(tmp_path: Path, data: bytes, id: str) -> None:
    result = scan(tmp_path, data)
    assert severity(result, id) == "high"


def test_row_for_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    plain = wheel()
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        record = archive.read(f"{INFO}/RECORD").decode()
    more = record + record_line("tiny/gone.py", b"") + "\n"
    assert ids(scan(tmp_path, wheel(record=more))) == {"wheel.record-missing"}


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("other-1.0-py3-none-any.whl", "wheel.identity"),
        ("tiny-1.1-py3-none-any.whl", "wheel.identity"),
        ("tiny-1.0-cp312-cp312-linux_x86_64.whl", "wheel.tags"),
        ("tiny.whl", "wheel.file-name"),
        ("readme.txt", "wheel.file-name"),
    ],
)
def test_name_that_does_not_fit_the_metadata_is_found(tmp_path: Path, name: str, id: str) -> None:
    assert id in ids(scan(tmp_path, wheel(), name))


def with_member(change: Callable[[zipfile.ZipInfo], None], data: bytes = b"/etc/passwd") -> bytes:
    out = io.BytesIO(wheel())
    info = zipfile.ZipInfo("tiny/odd")
    change(info)
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(info, data)
    return out.getvalue()


def test_symbolic_link_is_refused(tmp_path: Path) -> None:
    def link(info: zipfile.ZipInfo) -> None:
        info.external_attr = 0o120777 << 16

    assert ids(scan(tmp_path, with_member(link))) == {"wheel.link"}


def test_unusual_compression_is_refused(tmp_path: Path) -> None:
    def lzma(info: zipfile.ZipInfo) -> None:
        info.compress_type = zipfile.ZIP_LZMA

    assert ids(scan(tmp_path, with_member(lzma))) == {"wheel.compression"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_member_that_stands_there_twice_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO(wheel())
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr("tiny/__init__.py", b"import os")
    assert ids(scan(tmp_path, out.getvalue())) == {"wheel.duplicate"}


def spoilt(find: bytes, offset: int, value: bytes, which: int = 0) -> bytes:
    """A wheel with `value` at `offset` in the record that starts with `find`."""
    data = bytearray(wheel(method=zipfile.ZIP_STORED))
    at = -1
    for _ in range(which + 1):
        at = data.index(find, at + 1)
    data[at + offset : at + offset + len(value)] = value
    return bytes(data)


LOCAL, CENTRAL = b"PK\x03\x04", b"PK\x01\x02"


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (spoilt(LOCAL, 30, b"T"), "wheel.names-differ"),
        (spoilt(CENTRAL, 46, b"T"), "wheel.names-differ"),
        (spoilt(LOCAL, 14, b"\x00\x00\x00\x00"), "wheel.headers-differ"),
        (spoilt(LOCAL, 8, b"\x08"), "wheel.headers-differ"),
        (spoilt(CENTRAL, 8, b"\x01"), "wheel.encrypted"),
        (spoilt(b"x = 1\n", 0, b"y"), "wheel.member"),
        (spoilt(b"PK\x05\x06", 10, b"\x01\x00"), "wheel.directory"),
        (spoilt(b"PK\x05\x06", 16, b"\x00\x00"), "wheel.hidden-bytes"),
        (spoilt(CENTRAL, 42, struct.pack("<L", 1 << 20)), None),
        (spoilt(LOCAL, 28, b"\x01"), None),
    ],
)
def test_zip_that_readers_could_read_differently_is_refused(
    tmp_path: Path, data: bytes, id: str | None
) -> None:
    result = scan(tmp_path, data)
    assert result.findings and not result.covered
    assert {f.severity for f in result.findings} == {"high"}
    if id is not None:
        assert ids(result) == {id}


def test_bytes_between_two_members_are_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(wheel())) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(zipfile.ZipInfo(info.filename), old.read(info))
            new.fp.write(b"hidden")  # type: ignore[union-attr]
            new.start_dir = new.fp.tell()  # type: ignore[union-attr]
    assert "wheel.hidden-bytes" in ids(scan(tmp_path, out.getvalue()))


def test_zip_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "WHEEL_RATIO_FLOOR_BYTES", 1 << 20)
    result = scan(tmp_path, wheel({"tiny/zeros": b"\x00" * (8 << 20)}))
    assert ids(result) == {"wheel.bomb"}


def test_directory_over_the_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_WHEEL_MEMBERS", 3)
    assert ids(scan(tmp_path, wheel())) == {"wheel.bomb"}

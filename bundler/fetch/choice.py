"""Which files of a source are taken: the request's patterns, and what a server needs by default.

Pure: names in, names out. What is left out is told, because a person may have wanted it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from airgap.errors import FormatError, SourceError
from airgap.events import Line, Sink
from airgap.format.names import check_path
from airgap.format.request import SourceRequest

# Bookkeeping of version control and of download tools at the top of a model folder: not the model,
# and OpenSSF Model Signing does not allow it there.
BOOKKEEPING = (".git", ".gitattributes", ".gitignore", ".gitmodules", ".cache")

# What repositories carry beside the safetensors that an engine maps: reason -> patterns. Only used
# where the request does not say `include`.
_NOT_NEEDED: dict[str, tuple[str, ...]] = {
    "pickled or other weights": (
        *("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.joblib", "*.npz", "*.npy"),
        *("*.h5", "*.hdf5", "*.msgpack", "*.ot", "*.tflite", "*.mlmodel", "*.mlpackage/*"),
        *("*.nemo", "*.llamafile", "*.pte", "*.engine", "*.tar", "*.tar.gz", "*.zip"),
        *("*.bin.index.json", "*.h5.index.json", "*.msgpack.index.json"),
    ),
    "ONNX, OpenVINO, CoreML copies": (
        *("*.onnx", "*.onnx_data", "*.onnx.data", "onnx/*", "openvino/*", "*/openvino_model.xml"),
        *("openvino_model*", "coreml/*"),
    ),
    "GGUF copies": ("*.gguf", "gguf/*"),
    "original checkpoint": ("original/*", "metal/*"),
    "pictures and papers": (
        *("*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.svg", "*.mp4", "*.wav", "*.pdf"),
    ),
    "training leftovers": ("runs/*", "*.tfevents.*", "optimizer.*", "checkpoint-*/*"),
}
# Mistral's repositories hold the same weights twice.
_MISTRAL_COPY = "consolidated*.safetensors"
_SPLIT_GGUF = re.compile(r"(.*)-\d{5}-of-\d{5}\.gguf", re.IGNORECASE)
WEIGHTS = ("safetensors", "gguf")


@dataclass(frozen=True)
class Left:
    """A file that is not taken, and why."""

    path: PurePosixPath
    size: int
    reason: str


def wanted(path: PurePosixPath, request: SourceRequest) -> bool:
    """What the request's own patterns say."""
    if request.include and not matches(path, request.include):
        return False
    return not matches(path, request.exclude)


def matches(path: PurePosixPath, globs: Iterable[str]) -> bool:
    """As on the Hub: `*` also spans folders, and a trailing slash means all below."""
    patterns = (f"{g}*" if g.endswith("/") else g for g in globs)
    return any(fnmatchcase(str(path), p) for p in patterns)


def choose(
    sizes: Mapping[PurePosixPath, int], request: SourceRequest
) -> tuple[list[PurePosixPath], list[Left]]:
    """The files of a repository that are taken, sorted, and those that are not.

    `include` means exactly what it matches; without it the formats that engines map are taken.
    """
    taken: list[PurePosixPath] = []
    left: list[Left] = []
    both = any(fnmatchcase(p.name, "model*.safetensors") for p in sizes)
    for path, size in sorted(sizes.items(), key=lambda item: str(item[0])):
        reason = _reason(path, request, both)
        if reason is None:
            taken.append(path)
        else:
            left.append(Left(path, size, reason))
    return taken, left


def _reason(path: PurePosixPath, request: SourceRequest, both: bool) -> str | None:
    """Why the file is not taken; None when it is."""
    if path.parts[0] in BOOKKEEPING:
        return "bookkeeping"
    if not wanted(path, request):
        return "include and exclude"
    if request.include:
        return None
    low = PurePosixPath(str(path).lower())
    for reason, patterns in _NOT_NEEDED.items():
        if matches(low, patterns):
            return reason
    if both and fnmatchcase(low.name, _MISTRAL_COPY):
        return "the same weights again"
    return None


def tell(left: Sequence[Left], sink: Sink) -> None:
    """One line for each reason."""
    for reason in dict.fromkeys(f.reason for f in left):
        group = [f for f in left if f.reason == reason]
        size = sum(f.size for f in group)
        names = ", ".join(ascii(str(f.path))[1:-1][:60] for f in group[:3])
        more = f" and {len(group) - 3} more" if len(group) > 3 else ""
        sink(Line("leave out", f"{reason}: {names}{more} ({size:,} bytes)"))


def one_format(
    kinds: Mapping[PurePosixPath, str | None], source: str, allowed: Sequence[str] = WEIGHTS
) -> str:
    """The one format of the weights among `kinds` (path -> format, or None for other files).

    Raises SourceError `source.no-weights`, `source.two-formats` or `source.several-weights`.
    Whether the weights are well-formed is for the gate to say.
    """
    found = {k: path for path, k in kinds.items() if k is not None and k in allowed}
    if not found:
        raise SourceError(
            "source.no-weights",
            f"{source} holds no weights that can be served",
            why=f"there is no {' and no '.join(allowed)} file among its files",
            do="name a source with *.safetensors or one *.gguf file; pickled weights "
            "(*.bin, *.pt) must be converted first",
        )
    if len(found) > 1:
        raise SourceError(
            "source.two-formats",
            f"{source} holds weights in two formats",
            why=f"'{found['gguf']}' is GGUF and '{found['safetensors']}' is safetensors",
            do='choose one, for example include = ["*.gguf"], or exclude = ["*.gguf"]',
        )
    kind = next(iter(found))
    if kind == "gguf":
        _check_one_gguf([p for p, k in kinds.items() if k == kind], source)
    return kind


def _check_one_gguf(paths: Sequence[PurePosixPath], source: str) -> None:
    """One GGUF file, or the parts of one."""
    named = [str(p) for p in paths if p.suffix.lower() == ".gguf"]
    stems = {stem(name) for name in named}
    if len(stems) > 1:
        raise SourceError(
            "source.several-weights",
            f"{source} holds {len(stems)} GGUF models",
            why=", ".join(sorted(stems)[:12]),
            do='choose one of them, for example include = ["*Q4_K_M*.gguf"]',
        )


def stem(name: str) -> str:
    """A GGUF file's name without its suffix; the same for all parts of one model."""
    parts = _SPLIT_GGUF.fullmatch(name)
    return parts[1] if parts else name[: -len(".gguf")]


def check_name(path: str) -> PurePosixPath:
    """`path` as a path that can travel; SourceError `source.name` otherwise."""
    try:
        path.encode("utf-8")
        check_path(path, "")
    except (UnicodeEncodeError, FormatError) as e:
        why = e.why if isinstance(e, FormatError) else "the name is not UTF-8"
        raise SourceError(
            "source.name",
            f"the name {shown(path)} cannot travel",
            why=why,
            do="rename the file in the source, or exclude it",
        ) from e
    return PurePosixPath(path)


def shown(path: object) -> str:
    """A hostile name, harmless on a terminal."""
    return ascii(str(path))[:200]

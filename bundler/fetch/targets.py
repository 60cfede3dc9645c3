"""A target as PEP 425 tags and as PEP 508 environment: what it installs, and which markers hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airgap.format.types import Target

if TYPE_CHECKING:
    from packaging.tags import Tag

# Oldest glibc of a manylinux tag on each architecture (PEP 600, PEP 571, PEP 513).
_OLDEST_GLIBC = {"x86_64": 5, "aarch64": 17}
_LEGACY_TAGS = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


def spoken(target: Target) -> str:
    """For people."""
    return f"Python {target.python} on {target.platform}"


def target_tags(target: Target) -> list[Tag]:
    """Every wheel tag that the target installs, most liked first (PEP 425)."""
    from packaging.tags import compatible_tags, cpython_tags

    major, minor = target.python.split(".")
    version = (int(major), int(minor))
    platforms = _platforms(target.platform)
    interpreter = f"cp{major}{minor}"
    tags = list(cpython_tags(version, platforms=platforms))
    tags += compatible_tags(version, interpreter=interpreter, platforms=platforms)
    return tags


def _platforms(platform: str) -> list[str]:
    """`x86_64-manylinux_2_34` -> its own tag and every older one (PEP 600), newest first."""
    machine, _, glibc = platform.partition("-manylinux_2_")
    out: list[str] = []
    for minor in range(int(glibc), _OLDEST_GLIBC[machine] - 1, -1):
        out.append(f"manylinux_2_{minor}_{machine}")
        if minor in _LEGACY_TAGS:
            out.append(f"{_LEGACY_TAGS[minor]}_{machine}")
    return [*out, f"linux_{machine}"]


def environment(target: Target) -> dict[str, str]:
    """Values of the markers on that target. The patch level is not known: the lowest is taken, as
    uv does."""
    machine = target.platform.partition("-")[0]
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{target.python}.0",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{target.python}.0",
        "python_version": target.python,
        "sys_platform": "linux",
    }

"""What an image's configuration claims of CUDA, and whether a driver meets it.

`NVIDIA_REQUIRE_CUDA` and its siblings are conditions that NVIDIA's container runtime holds against
the driver: alternatives stand between spaces, and each is a list of comparisons between commas that
must all hold: `cuda>=12.9 brand=tesla,driver>=535,driver<536`. The alternatives with a brand are
older drivers on which the image brings compatibility libraries of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airgap.format import canonical, oci

Version = tuple[int, ...]
_TERM = re.compile(r"(cuda|driver|arch|brand)(<=|>=|!=|<|>|=)(.{1,40})", re.IGNORECASE)
_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,5}")
# NVIDIA's images have some 30 alternatives.
_MAX_TERMS = 2000
_REQUIRE = "NVIDIA_REQUIRE_"
# Labels of images from before the variables.
_OLD_LABELS = ("com.nvidia.volumes.needed", "com.nvidia.cuda.version")


@dataclass(frozen=True)
class Term:
    """One comparison: `name` is cuda, driver, arch or brand."""

    name: str
    operator: str
    value: str


Requirement = tuple[tuple[Term, ...], ...]


@dataclass(frozen=True)
class Claims:
    """`version`: of CUDA, as `12.9`, or empty. `requirements`: by variable, alternatives of terms.
    `capabilities`: what it asks of the driver, None where it does not say. `unclear`: variables
    that are not of the form above."""

    version: str = ""
    requirements: Mapping[str, Requirement] | None = None
    capabilities: frozenset[str] | None = None
    unclear: tuple[str, ...] = ()
    labelled: bool = False

    @property
    def any(self) -> bool:
        """Whether it claims at all to be made for NVIDIA's GPUs."""
        said = self.version or self.requirements or self.unclear or self.labelled
        return bool(said) or self.capabilities is not None

    @property
    def needs(self) -> str:
        """The least CUDA that it says it needs, as `12.9`; empty where it says none. Of a
        requirement the easiest alternative counts, of several requirements the hardest."""
        found = [_least(requirement) for requirement in (self.requirements or {}).values()]
        return max((v for v in (*found, self.version) if v), key=version, default="")


def claims(config: bytes) -> Claims:
    """Of an image's configuration. Raises FormatError where that is none."""
    inner = _table(_table(canonical.decode(config, max_bytes=oci.MAX_CONFIG_BYTES)).get("config"))
    variables, labels = oci.variables(inner.get("Env")), _table(inner.get("Labels"))
    found, unclear = _requirements(variables)
    told = variables.get("CUDA_VERSION") or str(labels.get("com.nvidia.cuda.version", ""))
    number = _VERSION.match(told)
    words = variables.get("NVIDIA_DRIVER_CAPABILITIES")
    return Claims(
        version=number[0] if number else "",
        requirements=found,
        capabilities=None if words is None else frozenset(words.replace(" ", "").split(",")),
        unclear=tuple(unclear),
        labelled=any(label in labels for label in _OLD_LABELS),
    )


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _requirements(variables: Mapping[str, str]) -> tuple[dict[str, Requirement], list[str]]:
    """What the runtime would check: nothing where the image switches that off."""
    if variables.get("NVIDIA_DISABLE_REQUIRE", "").lower() in ("1", "t", "true"):
        return {}, []
    found, unclear = {}, []
    for name, text in sorted(variables.items()):
        if not name.startswith(_REQUIRE) or name.startswith(f"{_REQUIRE}JETPACK"):
            continue
        requirement = parse(text)
        if requirement is None:
            unclear.append(name)
        elif requirement:
            found[name] = requirement
    return found, unclear


def parse(text: str) -> Requirement | None:
    """Alternatives of terms; None where the text has another form."""
    out = []
    words = [w for w in text.split(" ") if w]
    if len(words) + text.count(",") > _MAX_TERMS:
        return None
    for word in words:
        terms = []
        for part in filter(None, word.split(",")):
            found = _TERM.fullmatch(part)
            if found is None:
                return None
            name, operator, value = found[1].lower(), found[2], found[3]
            if name == "brand":
                good = operator in ("=", "!=") and value.isalnum()
            else:
                good = _VERSION.fullmatch(value) is not None
            if not good:
                return None
            terms.append(Term(name, operator, value))
        if terms:
            out.append(tuple(terms))
    return tuple(out)


def _least(requirement: Requirement) -> str:
    """The least CUDA of its alternatives for every brand; empty where they name none."""
    named = [
        term.value
        for terms in requirement
        if not _branded(terms)
        for term in terms
        if (term.name, term.operator) == ("cuda", ">=")
    ]
    return min(named, key=version, default="")


def _branded(terms: tuple[Term, ...]) -> bool:
    return any(t.name == "brand" for t in terms)


def met(requirement: Requirement, have: Mapping[str, str]) -> bool | None:
    """Whether a host with `have` (cuda, driver, arch) meets it. None: only as one of the brands
    that it names, with the image's own compatibility libraries."""
    holding = [terms for terms in requirement if all(_holds(t, have) for t in terms)]
    if any(not _branded(terms) for terms in holding):
        return True
    return None if holding else False


def _holds(term: Term, have: Mapping[str, str]) -> bool:
    """A brand is not measured: it may hold. What the host does not say holds nothing."""
    if term.name == "brand":
        return True
    if not have.get(term.name):
        return False
    mine, theirs = version(have[term.name]), version(term.value)
    return {
        "=": mine == theirs,
        "!=": mine != theirs,
        "<": mine < theirs,
        "<=": mine <= theirs,
        ">": mine > theirs,
        ">=": mine >= theirs,
    }[term.operator]


def version(text: str) -> Version:
    """`12.9` as numbers that compare; `12.9.0` is the same."""
    numbers = [int(n) for n in text.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def text(requirement: Requirement) -> str:
    """What holds for every brand, as the image says it; all of it where there is no such thing."""
    words = [
        ",".join(f"{t.name}{t.operator}{t.value}" for t in terms)
        for terms in requirement
        if not _branded(terms)
    ]
    return " or ".join(words) or "a brand of GPU and a branch of its driver"

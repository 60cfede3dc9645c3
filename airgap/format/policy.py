"""The policy document: the receiver's rules. `airgap.policy` judges by it on both sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from airgap.errors import FormatError
from airgap.format.artifacts import ModelFormat
from airgap.format.codec import Document
from airgap.format.rules import Choice, Range
from airgap.format.types import Line, Name, PredicateType, Prose, Severity, Sha256


@dataclass(frozen=True, kw_only=True)
class Policy(Document):
    """The defaults are the built-in strict policy, which holds where none is installed.

    `fail_severity`: findings of this severity or worse refuse, unless waived.
    `publishers`, `licences`: None does not restrict; a list admits only what it names.
    `max_trust_age_days`: after the officers last signed targets. `grace_days` lets the builder's
    timestamp and snapshot be that many days late; officers' dates never have grace.
    `pth_files`: SHA-256 of `.pth` files that wheels may install. `registries`: hosts that images
    may come from; None does not restrict. `image_keys`: PEM public keys of which one must have
    signed each image; none asks for no signature. `image_attestations`: in-toto predicate types, of
    each of which each image must carry a statement that one of `image_keys` signed; what the
    statement says is not judged. `min_wheel_age_days`: how long an index must have had a wheel when
    it was locked, where the index tells. `refuse_network`: a host that has a default route or a
    name server configured takes no bundle in.
    """

    schema: Annotated[str, Choice(("sealift.policy/1",))] = "sealift.policy/1"
    name: Name = "strict"
    site: Name | None = None
    min_approvals: Annotated[int, Range(1, 50)] = 2
    max_trust_age_days: Annotated[int, Range(1, 3650)] = 180
    grace_days: Annotated[int, Range(0, 90)] = 0
    formats: tuple[ModelFormat, ...] = ("safetensors", "gguf")
    publishers: tuple[Line, ...] | None = None
    licences: tuple[Line, ...] | None = None
    fail_severity: Severity = "medium"
    max_waivers: Annotated[int, Range(0, 1000)] = 0
    pth_files: tuple[Sha256, ...] = ()
    allow_downgrade: bool = False
    registries: tuple[Line, ...] | None = None
    image_keys: tuple[Prose, ...] = ()
    image_attestations: tuple[PredicateType, ...] | None = None
    min_wheel_age_days: Annotated[int, Range(0, 3650)] = 0
    refuse_network: bool | None = None

    def validate(self) -> None:
        if self.image_attestations is None:
            return
        if not self.image_attestations:
            why = "an empty list asks for nothing: leave the key out"
            raise FormatError("format.value", "image-attestations", why)
        if not self.image_keys:
            why = "it needs image-keys: a statement counts only when one of them signed it"
            raise FormatError("format.value", "image-attestations", why)


STRICT = Policy()

"""TUF metadata: bounded strict parsing, thresholds by verified signatures, our own fields.

Ours: `x-sealift-issued` (UTC seconds) in root and targets, `x-sealift-solo` in root,
`x-sealift-revoked` (manifest SHA-256s, append-only) in targets. Any other `x-sealift-` field is
refused: it might mean something to whoever signed it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from airgap import limits
from airgap.errors import FormatError, TrustError
from airgap.format import canonical
from airgap.trust.keys import OFFICER_FIELD, can_check

ISSUED = "x-sealift-issued"
SOLO = "x-sealift-solo"
REVOKED = "x-sealift-revoked"
_KNOWN = {"root": {ISSUED, SOLO}, "targets": {ISSUED, REVOKED}}
_SHA256 = re.compile(r"[0-9a-f]{64}")

S = TypeVar("S", Root, Targets, Snapshot, Timestamp)


def parse(data: bytes, kind: type[S], max_bytes: int) -> Metadata[S]:
    """Parse one metadata file; the signatures are not looked at yet.

    Raises TrustError `trust.metadata`.
    """
    try:
        plain = canonical.decode(data, max_bytes=max_bytes)
        if not isinstance(plain, dict):
            raise FormatError("format.value", "", "it is no table")
        found = Metadata[S].from_dict(plain)
    except (FormatError, DeserializationError, RepositoryError) as e:
        raise _bad(kind.type, str(getattr(e, "why", e))) from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        # python-tuf's from_dict leaks these on data that is JSON but no metadata.
        raise _bad(kind.type, f"{type(e).__name__}: {e}") from e
    if found.signed.type != kind.type:
        raise _bad(kind.type, f"it is {found.signed.type} metadata")
    _check_fields(found.signed)
    return found


def _check_fields(signed: Signed) -> None:
    _check_known(signed.type, signed.unrecognized_fields, _KNOWN.get(signed.type, set()))
    if isinstance(signed, Root):
        for key in signed.keys.values():
            _check_known("root", key.unrecognized_fields, {OFFICER_FIELD})
        for role in signed.roles.values():
            _check_known("root", role.unrecognized_fields, set())
    if isinstance(signed, Targets):
        for target in signed.targets.values():
            _check_known("targets", target.unrecognized_fields, set())
            _check_known("targets", target.custom or {}, set())
    if signed.type in _KNOWN:
        issued(signed)


def _check_known(kind: str, fields: Mapping[str, Any], known: set[str]) -> None:
    for name in fields:
        if name.startswith("x-sealift-") and name not in known:
            raise _bad(kind, f"it has the unknown field {name[:60]}; a newer airgap may know it")


def issued(signed: Signed) -> int:
    """When the officers made it, UTC seconds."""
    value = signed.unrecognized_fields.get(ISSUED)
    if type(value) is not int or not 0 <= value <= limits.MAX_SECONDS:
        raise _bad(signed.type, f"{ISSUED} is missing or no time")
    return value


def revoked(targets: Targets) -> frozenset[str]:
    """SHA-256 of every manifest that was taken back."""
    value: Any = targets.unrecognized_fields.get(REVOKED, [])
    if not isinstance(value, list) or value != sorted(set(map(str, value))):
        raise _bad("targets", f"{REVOKED} is no sorted list of SHA-256")
    if not all(_SHA256.fullmatch(v) for v in value):
        raise _bad("targets", f"{REVOKED} is no sorted list of SHA-256")
    return frozenset(value)


def is_solo(root: Root) -> bool:
    """Whether one person is officer and builder at once, and says so."""
    return root.unrecognized_fields.get(SOLO) is True


def check_threshold(root: Root, role: str, found: Metadata[Any], what: str) -> None:
    """Raise TrustError unless `root`'s keys for `role` signed `found` up to the threshold.

    A signature that nothing here can check is `trust.scheme-unavailable`, never "too few".
    """
    result = root.get_verification_result(role, found.signed_bytes, found.signatures)
    if result.verified:
        return
    present = [k for keyid, k in result.unsigned.items() if keyid in found.signatures]
    blind = [k for k in present if not can_check(k)]
    if blind:
        raise TrustError(
            "trust.scheme-unavailable",
            f"signatures on {what} cannot be checked on this host",
            why=f"{len(blind)} of them are {blind[0].scheme}, which needs the cryptography package",
            do="install the cryptography wheel from the installer kit, then run this again",
        )
    wrong = f"; {len(present)} more do not fit the bytes" if present else ""
    raise TrustError(
        "trust.threshold",
        f"{what} has {len(result.signed)} of the {result.threshold} signatures that it needs",
        why=f"root {root.version} asks {result.threshold} of {len(root.roles[role].keyids)} keys "
        f"for {role}{wrong}",
        do="bring a bundle that was packed after enough officers ran `sealift approve`",
    )


def _bad(kind: str, why: str) -> TrustError:
    return TrustError(
        "trust.metadata",
        f"the {kind} metadata cannot be read",
        why=why[:300],
        do="copy the bundle again; if it is refused again, ask the builder for a new one",
    )

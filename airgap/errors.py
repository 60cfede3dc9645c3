"""One error root. Every failure a person can meet has an id, an exit code, and three sentences.

what: what failed; why: the cause; do: the next step that gets the person out.
Foreign exceptions are wrapped where they enter; only a CLI catches `SealiftError`.
"""

from __future__ import annotations


class SealiftError(Exception):
    """Root of all errors of ours.

    `id` is stable and machine-readable (`area.cause`), `exit_code` is the process's exit status.
    """

    exit_code: int = 1

    def __init__(self, id: str, what: str, *, why: str, do: str) -> None:
        super().__init__(f"{id}: {what}")
        self.id = id
        self.what = what
        self.why = why
        self.do = do


class UsageError(SealiftError):
    """The command or a document that a person wrote is wrong."""

    exit_code = 2


class IntegrityError(SealiftError):
    """Bytes are not what the manifest says: damaged, missing, extra, not well-formed."""

    exit_code = 3


class FormatError(IntegrityError):
    """A document is not well-formed. `where` is a path into it (`artifacts[0].files[2].path`)."""

    def __init__(self, id: str, where: str, why: str) -> None:
        self.where = where
        super().__init__(
            id,
            f"the document is not well-formed at {where or 'its top level'}",
            why=why,
            do="take the file from its source again; if it is unchanged there, report it",
        )


class TrustError(SealiftError):
    """Signature, threshold, expiry, rollback, revocation."""

    exit_code = 4


class PolicyError(SealiftError):
    """The receiver's policy refuses it."""

    exit_code = 5


class SourceError(SealiftError):
    """A source or the network did not deliver."""

    exit_code = 6


class HostError(SealiftError):
    """This host cannot run it."""

    exit_code = 7


class DiskError(SealiftError):
    """No space, or the disk answered with an error."""

    exit_code = 8


class ServingError(SealiftError):
    """The engine did not come up or failed its checks; what served before still serves."""

    exit_code = 9

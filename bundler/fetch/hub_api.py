"""The seam to the Hugging Face Hub: `huggingface_hub` resolves and lists, everything it raises is
wrapped here. Bytes of files come through our own downloader.

The endpoint is `HF_ENDPOINT`, the token is looked for where the Hub's own tools do (`HF_TOKEN`, the
file that `hf auth login` wrote). The token goes to the endpoint's own origin and nowhere else.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from airgap import limits
from airgap.errors import SealiftError, SourceError, UsageError
from airgap.events import Sink, Warn, silent
from bundler.fetch import hub_answers as answers
from bundler.fetch.http import RETRY, retry_after
from bundler.fetch.hub_answers import HubFile, Listed, Revision

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

T = TypeVar("T")
DEFAULT_ENDPOINT = "https://huggingface.co"
# Seconds without an answer of the API until it counts as down.
API_SECONDS = 60.0
# Seconds before each further try of what a later one may answer.
_PAUSES = (0.5, 1.0, 2.0, 4.0)
# A Hub may ask for a longer pause (Retry-After); more than this and a person should decide.
_MAX_PAUSE_SECONDS = 120.0
# One answer of the API, in bytes: a page of a tree has some 300 KB, a model with all its file names
# a few megabytes.
MAX_ANSWER_BYTES = 64 * limits.MIB
# Requests for one question: the longest tree in pages of 100.
_MAX_REQUESTS = 2000
# A search is one page; the rest are other tries.
_MAX_SEARCH_REQUESTS = 8
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Hub:
    """One endpoint. `token` is never shown."""

    endpoint: str
    token: str | None = field(repr=False, default=None)

    @classmethod
    def find(cls, sink: Sink = silent) -> Hub:
        """The Hub that this machine is set up for. Raises UsageError `source.endpoint`."""
        endpoint = (os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise UsageError(
                "source.endpoint",
                "HF_ENDPOINT is not the address of a Hub",
                why="it must be http(s)://HOST, without a user name",
                do="correct it, or unset it for https://huggingface.co",
            )
        token = _find_token()
        if token and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            sink(Warn("source.token-kept", f"the token is not sent to {endpoint}: it is no HTTPS"))
            token = None
        return cls(endpoint, token)

    @property
    def host(self) -> str:
        """The endpoint's host, as sources are called by it."""
        return urlsplit(self.endpoint).hostname or self.endpoint

    def source(self, repo: str) -> str:
        """How the repository is called in a lock."""
        return f"{self.host}/{repo}"

    def url(self, repo: str, commit: str, path: str) -> str:
        """Where the bytes of a file are asked for."""
        return f"{self.endpoint}/{repo}/resolve/{commit}/{quote(path)}"

    def access(self, repo: str) -> HubAccess:
        """What the downloader needs to fetch files of `repo`."""
        return HubAccess(self, repo)

    def resolve(self, repo: str, revision: str) -> Revision:
        """Pin `revision` to its commit. Raises SourceError (`source.*`)."""
        with self._errors(repo, revision):
            api = self._api()
            info = _patiently(lambda: api.model_info(repo, revision=revision, timeout=API_SECONDS))
            bases = tuple(answers.bases(info.tags))
            found = Revision(repo, str(info.sha), answers.licence(info.card_data), bases)
            if info.gated:
                _check_access(api, repo)
        if info.id != repo:
            raise _renamed(self.source(repo), str(info.id))
        pinned = answers.COMMIT.fullmatch(revision) is not None
        if not answers.COMMIT.fullmatch(found.commit) or (pinned and found.commit != revision):
            raise answers.strange(self.source(repo), f"{revision} means {found.commit[:80]!r}")
        return found

    def tree(self, repo: str, commit: str) -> list[HubFile]:
        """Every file of the commit. Raises SourceError (`source.*`)."""
        from huggingface_hub.hf_api import RepoFile

        out: list[HubFile] = []
        with self._errors(repo, commit):
            for entry in self._api().list_repo_tree(repo, recursive=True, revision=commit):
                if isinstance(entry, RepoFile):
                    out.append(answers.file(entry, self.source(repo)))
                if len(out) > limits.MAX_FILES:
                    raise answers.strange(self.source(repo), f"more than {limits.MAX_FILES} files")
        return out

    def quantised(self, repo: str, tag: str, most: int) -> list[Listed]:
        """Models whose cards say that they are `repo` quantised, and that have `tag`; the most
        downloaded first, at most `most`. Raises SourceError (`source.*`).

        What such a card says is nobody's word but its author's.
        """
        from huggingface_hub.errors import HfHubHTTPError

        tags = [f"{answers.QUANTISED}{repo}", tag]
        with self._errors(repo, "a search", requests=_MAX_SEARCH_REQUESTS):
            try:
                models = list(
                    self._api().list_models(
                        filter=tags, sort="downloads", limit=most, expand=["downloads", "tags"]
                    )
                )
            except HfHubHTTPError as e:
                raise _no_search(self.host, repo, e.response.status_code) from e
            return [answers.listed(m) for m in models if answers.REPO.fullmatch(m.id)]

    def _api(self) -> HfApi:
        import huggingface_hub

        return huggingface_hub.HfApi(endpoint=self.endpoint, token=self.token or False)

    def _client(self, requests: int) -> httpx2.Client:
        """The library's own client, with an end to its patience, to pages that follow one another
        and to long answers, and a bound for the token."""
        import httpx2
        from huggingface_hub.utils._http import hf_request_event_hook

        from bundler.fetch.bounded import bounded

        count = itertools.count(1)

        def bound(request: httpx2.Request) -> None:
            if next(count) > requests:
                raise answers.strange(
                    self.host, f"one question takes more than {requests} requests"
                )
            request.extensions["timeout"] = httpx2.Timeout(API_SECONDS).as_dict()
            if _origin(str(request.url)) != _origin(self.endpoint):
                request.headers.pop("authorization", None)

        def short(response: httpx2.Response) -> None:
            packed = response.headers.get("content-encoding", "identity")
            if packed.lower() not in ("identity", ""):
                # What is counted is what comes over the line: a small answer could become any size.
                raise answers.strange(self.host, f"it answers packed as {packed[:40]!r}")
            why = f"an answer has more than {MAX_ANSWER_BYTES:,} bytes"
            bounded(response, MAX_ANSWER_BYTES, lambda: answers.strange(self.host, why))

        hooks: dict[str, list[Callable[..., Any]]] = {
            "request": [hf_request_event_hook, bound],
            "response": [short],
        }
        plain = {"Accept-Encoding": "identity"}
        return httpx2.Client(headers=plain, event_hooks=hooks, follow_redirects=True)

    @contextlib.contextmanager
    def _errors(self, repo: str, revision: str, requests: int | None = None) -> Iterator[None]:
        """Whatever the library raises, as one of ours."""
        import httpx2
        from huggingface_hub import errors, set_client_factory
        from huggingface_hub.utils._http import default_client_factory

        set_client_factory(functools.partial(self._client, requests or _MAX_REQUESTS))
        try:
            yield
        except errors.HFValidationError as e:
            raise UsageError(
                "request.invalid", f"{repo!r} is no repository", why=str(e), do="correct 'repo'"
            ) from e
        except errors.HfHubHTTPError as e:
            raise self._refusal(e, repo, revision) from e
        except errors.OfflineModeIsEnabled as e:
            raise SourceError(
                "source.offline",
                f"{self.source(repo)} cannot be asked",
                why="HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set",
                do="unset it on the connected machine",
            ) from e
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as e:
            raise SourceError(
                "source.unreachable",
                f"{self.host} could not be asked for {repo}",
                why=f"{type(e).__name__}: {e}",
                do="check network, proxy and HF_ENDPOINT, then run the same command again",
            ) from e
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            why = f"its answer is not understood: {type(e).__name__}: {e}"[:300]
            raise answers.strange(self.source(repo), why) from e
        finally:
            # The library keeps one client for the process; ours knows this endpoint only.
            set_client_factory(default_client_factory)

    def _refusal(self, e: Any, repo: str, revision: str) -> SealiftError:
        from huggingface_hub import errors

        source, code = self.source(repo), e.response.status_code
        if isinstance(e, errors.GatedRepoError):
            return self.gated(repo)
        if isinstance(e, errors.RevisionNotFoundError):
            return SourceError(
                "source.revision",
                f"{source} has no revision {revision}",
                why="it was never there, was deleted, or the repository was made anew",
                do="correct 'revision': a branch, a tag, refs/pr/N or a commit of 40 digits",
            )
        if isinstance(e, errors.DisabledRepoError):
            return SourceError(
                "source.disabled",
                f"{source} was disabled by the Hub",
                why=" ".join((e.server_message or "the Hub does not say why").split())[:300],
                do="do not use it before you know why",
            )
        if isinstance(e, errors.RepositoryNotFoundError) or code in (401, 403, 404):
            return self.not_found(repo, code)
        return SourceError(
            "source.http",
            f"{source} was not delivered",
            why=f"{self.host} answered {code}",
            do="try again later; if it stays, look at the Hub's status page",
        )

    def gated(self, repo: str) -> SourceError:
        """The error for a repository whose files are only for those on its list."""
        what = "it is not on the repository's list" if self.token else "no token is set"
        return SourceError(
            "source.gated",
            f"{self.source(repo)} is gated",
            why=f"its owner gives files to those who accepted the licence; {what}",
            do=f"accept the licence at {self.endpoint}/{repo}, then set HF_TOKEN to a token of "
            "that account (or run `hf auth login`)",
        )

    def not_found(self, repo: str, code: int) -> SourceError:
        """The error for a repository that is not there, or not for this token."""
        if self.token:
            why = f"{self.host} answered {code}: it is not there, or the token may not see it"
            do = "check the name, and that HF_TOKEN may read that repository"
        else:
            why = f"{self.host} answered {code}: it is not there, or it is private; no token is set"
            do = "check the name; for a private one set HF_TOKEN or run `hf auth login`"
        return SourceError("source.no-repo", f"there is no {self.source(repo)}", why=why, do=do)


@dataclass(frozen=True)
class HubAccess:
    """The downloader's access to one repository: the token, for the endpoint's own origin only."""

    hub: Hub
    repo: str

    def headers(self, url: str) -> Mapping[str, str]:
        """The token, where it belongs."""
        if self.hub.token is None or _origin(url) != _origin(self.hub.endpoint):
            return {}
        return {"Authorization": f"Bearer {self.hub.token}"}

    def refused(self, status: int, headers: Mapping[str, str]) -> bool:
        """A refusal is for good, and has a cause that a person can do something about."""
        if headers.get("x-error-code") == "GatedRepo":
            raise self.hub.gated(self.repo)
        if status == 401 or headers.get("x-error-code") == "RepoNotFound":
            raise self.hub.not_found(self.repo, status)
        return False


def _check_access(api: HfApi, repo: str) -> None:
    """The tree of a gated repository is public, its files are not: say so before any work."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    try:
        api.auth_check(repo)
    except GatedRepoError:
        raise
    except HfHubHTTPError:
        # A mirror may not have this call; then the files themselves will tell.
        return


def _find_token() -> str | None:
    # Which libraries and agents this machine runs is nobody's business.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub.errors import OIDCError
    from huggingface_hub.utils._headers import get_token_to_send

    try:
        return get_token_to_send(None)
    except (OSError, OIDCError) as e:
        raise UsageError(
            "source.token",
            "the Hub's token cannot be read",
            why=str(e)[:300],
            do="set HF_TOKEN, or run `hf auth login` again",
        ) from e


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or default


def _no_search(host: str, repo: str, code: int) -> SourceError:
    return SourceError(
        "source.search",
        f"{host} was not searched for models quantised from {repo}",
        why=f"it answered {code}" + (": it may have no search" if code in (401, 404) else ""),
        do="look for them yourself, or ask a Hub that can be searched",
    )


def _renamed(asked: str, found: str) -> SourceError:
    return SourceError(
        "source.renamed",
        f"{asked} is called {found[:200]!a} now",
        why="the Hub redirects to it; a name that was given up can be taken over by anybody",
        do=f"look at who owns {found[:200]!a}; if it is right, write that name into the request",
    )


def _patiently(ask: Callable[[], T]) -> T:
    """The library asks again for trees and files, but not for what a revision means."""
    from huggingface_hub import errors

    for pause in _PAUSES:
        try:
            return ask()
        except errors.HfHubHTTPError as e:
            wanted = retry_after(e.response.headers)
            if e.response.status_code not in RETRY or (wanted or 0.0) > _MAX_PAUSE_SECONDS:
                raise
            time.sleep(pause if wanted is None else wanted)
    return ask()

"""The smoke test: healthy, the approved model name, the manifest's prompts answered as expected."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airgap import limits
from airgap.engines.registry import engine_for, serving_plan
from airgap.errors import ServingError
from airgap.events import Line, Progress, Sink
from airgap.format.receipt import CheckResult
from airgap.format.types import Check, Serve
from airgap.host import endpoint, listeners, locks, logs, loopback, processes
from airgap.host.deployment import Deployment
from airgap.host.endpoint import Endpoint

_ASK_SECONDS = 10.0


@dataclass(frozen=True)
class Smoke:
    """Results in the manifest's order. `answers` are for the terminal, never for a file."""

    checks: tuple[CheckResult, ...]
    answers: tuple[str, ...]


def smoke(deployment: Deployment, sink: Sink) -> Smoke:
    """Wait for the supervised engine to be healthy, then ask everything.

    Raises ServingError (exit 9): `serving.engine-died`, `serving.not-healthy`,
    `serving.model-missing`, `serving.check-failed`, `serving.bad-answer`.
    """
    begun = time.monotonic()
    where = wait_healthy(deployment, sink)
    seconds = time.monotonic() - begun
    results = ask(deployment, where.port, sink)
    passed = f", check {len(results.checks)}/{len(results.checks)} passed" if results.checks else ""
    name = engine_for(deployment.manifest).name
    sink(Line("start", f"{name} healthy after {seconds:.1f} s{passed}"))
    return results


def wait_healthy(deployment: Deployment, sink: Sink) -> Endpoint:
    """Wait until /health answers 200; at once an error when the engine ends meanwhile."""
    health = engine_for(deployment.manifest).health_path
    place = deployment.paths
    before = endpoint.live(place)
    crashes = before.crashes if before is not None and before.state == "up" else 0
    begun = time.monotonic()
    told = 0
    while (waited := time.monotonic() - begun) < limits.ENGINE_START_SECONDS:
        where = _must_live(deployment, crashes)
        if where.state == "up" and listeners.is_ours(where) and _is_healthy(where.port, health):
            return where
        if int(waited) > told:
            told = int(waited)
            sink(Progress("start", told, limits.ENGINE_START_SECONDS, unit="seconds"))
        processes.pause(waited)
    raise _died(
        deployment,
        "serving.not-healthy",
        f"{deployment.title} was not healthy after {limits.ENGINE_START_SECONDS} s",
        "it runs but does not answer 200",
    )


def _must_live(deployment: Deployment, crashes: int) -> Endpoint:
    """The endpoint, as long as the engine has not died since we began to wait."""
    place = deployment.paths
    title = f"the engine of {deployment.title} ended while it started"
    where = endpoint.live(place)
    if where is None:
        if locks.holder(place.supervisor_lock) is None:
            raise _died(deployment, "serving.engine-died", title, "its supervisor is gone")
        where = endpoint.read(place)
    if where is None or where.crashes > crashes or where.state == "failed":
        how = where.last_exit if where is not None and where.last_exit else "it was stopped"
        raise _died(deployment, "serving.engine-died", title, how)
    return where


def _is_healthy(port: int, path: str) -> bool:
    try:
        return loopback.request(port, path, seconds=_ASK_SECONDS).status == 200
    except loopback.NoAnswer:
        return False


def _died(deployment: Deployment, id: str, what: str, how: str) -> ServingError:
    """In the engine's own words, behind ours where the engine knows what they mean."""
    log = deployment.paths.engine_log
    said = logs.tail(log).strip()
    searched = logs.tail(log, limits.LOG_SEARCH_LINES, limits.LOG_SEARCH_BYTES)
    meaning = engine_for(deployment.manifest).explain(searched)
    why = how if meaning is None else f"{how}: {meaning.why}"
    do = f"correct what its log names ({log})" if meaning is None else f"{meaning.do}; log: {log}"
    return ServingError(
        id,
        what,
        why=f"{why}; the end of its log:\n{said}" if said else why,
        do=f"{do}, then run the same command again",
    )


def ask(deployment: Deployment, port: int, sink: Sink) -> Smoke:
    """The model list and every check, on `port`."""
    serve = serving_plan(deployment.manifest)
    check_models(serve, port)
    results = []
    answers = []
    for number, check in enumerate(serve.check, 1):
        result, answer = _ask_one(serve, check, port)
        if not result.passed:
            raise _check_failed(check, number, answer)
        results.append(result)
        answers.append(answer)
        sink(Progress("check", number, len(serve.check), unit="checks"))
    return Smoke(tuple(results), tuple(answers))


def check_models(serve: Serve, port: int) -> None:
    """/v1/models lists the approved name and every adapter's. Raises ServingError."""
    path = "/v1/models"
    listed = loopback.decode(path, _request(port, path, None, _ASK_SECONDS))
    names = _reach(path, lambda: [m["id"] for m in listed["data"]])
    missing = [n for n in (serve.name, *serve.adapters) if n not in names]
    if missing:
        raise ServingError(
            "serving.model-missing",
            f"the engine does not serve the model '{missing[0]}'",
            why=f"it lists {', '.join(map(str, names))[:200] or 'nothing'}",
            do="look at the engine's log; the bundle's serving plan may not fit its model",
        )


def _ask_one(serve: Serve, check: Check, port: int) -> tuple[CheckResult, str]:
    path, question, get = _QUESTIONS[check.api](check)
    question["model"] = check.model or serve.name
    begun = time.monotonic()
    found = _request(port, path, json.dumps(question).encode(), float(check.timeout_seconds))
    milliseconds = int((time.monotonic() - begun) * 1000)
    reply = loopback.decode(path, found)
    answer = _reach(path, lambda: get(reply))
    if not isinstance(answer, str):
        raise loopback.bad_answer(path, "its content is not text")
    result = CheckResult(
        prompt=hashlib.sha256(check.prompt.encode()).hexdigest(),
        passed=_matches(check, answer),
        milliseconds=min(milliseconds, 86_400_000),
    )
    return result, answer


# Path, question without the model's name, and how to get the text out of the answer.
_Question = tuple[str, dict[str, Any], Callable[[Any], Any]]
# Greedy and seeded, so that the same bytes give the same answer.
_GREEDY = {"temperature": 0, "seed": 0, "stream": False}


def _chat(check: Check) -> _Question:
    message = {"role": "user", "content": check.prompt}
    question = {"messages": [message], "max_tokens": check.max_tokens, **_GREEDY}
    return "/v1/chat/completions", question, lambda r: r["choices"][0]["message"]["content"]


def _completion(check: Check) -> _Question:
    question = {"prompt": check.prompt, "max_tokens": check.max_tokens, **_GREEDY}
    return "/v1/completions", question, lambda r: r["choices"][0]["text"]


def _embedding(check: Check) -> _Question:
    question = {"input": check.prompt, "encoding_format": "float"}
    return "/v1/embeddings", question, lambda r: f"{_count(r['data'][0]['embedding'])} numbers"


def _count(vector: Any) -> int:
    """How many numbers; a vector of zeros or with anything else in it has none."""
    numbers = isinstance(vector, list) and all(isinstance(x, int | float) for x in vector)
    return len(vector) if numbers and any(vector) and all(map(math.isfinite, vector)) else 0


_QUESTIONS: dict[str, Callable[[Check], _Question]] = {
    "chat": _chat,
    "completion": _completion,
    "embedding": _embedding,
}


def question(serve: Serve, check: Check) -> tuple[str, bytes]:
    """Path and body of the request that a check is."""
    path, asked, _ = _QUESTIONS[check.api](check)
    return path, json.dumps({**asked, "model": check.model or serve.name}).encode()


def _matches(check: Check, answer: str) -> bool:
    try:
        return re.search(check.expect, answer) is not None
    except re.error as e:
        raise ServingError(
            "serving.check-invalid",
            "a check of the manifest cannot be judged",
            why=f"its `expect` is not a regular expression: {e}",
            do="correct [[serve.check]] in the request and have it approved again",
        ) from e


def _check_failed(check: Check, number: int, answer: str) -> ServingError:
    return ServingError(
        "serving.check-failed",
        f"check {number} of the manifest failed",
        why=f"expected {check.expect!r} in the answer, got {answer[:200]!r}",
        do="ask the builder: the model answers otherwise here than the approved check says",
    )


def _request(port: int, path: str, body: bytes | None, seconds: float) -> loopback.Answer:
    try:
        return loopback.request(port, path, body=body, seconds=seconds)
    except loopback.NoAnswer as e:
        raise loopback.bad_answer(path, f"it did not come: {e}") from e


def _reach(path: str, get: Callable[[], Any]) -> Any:
    """The part of an answer that we need, or an error that says it is not there."""
    try:
        return get()
    except (KeyError, IndexError, TypeError) as e:
        raise loopback.bad_answer(path, f"it lacks what the OpenAI API promises: {e!r}") from e

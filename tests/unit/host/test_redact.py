"""What leaves in a dump has no keys, and nothing that people wrote or models answered."""

from __future__ import annotations

import json

import pytest

from airgap.host import redact

KEY = "sk-" + "Abc123_-" * 4


@pytest.mark.parametrize(
    "line",
    [
        f"Authorization: Bearer {KEY}",
        f"authorization='{KEY}'",
        f'{{"api_key": "{KEY}"}}',
        f"LITELLM_MASTER_KEY is set: token={KEY}",
        f"failed for {KEY}, tried twice",
        "cloned with hf_" + "q" * 30,
        "bearer " + "eyJhbGciOi.J9" * 3,
        "password = hunter22 and more",
    ],
)
def test_no_key_is_left(line: str) -> None:
    shown = redact.text(line)
    assert redact.LEFT_OUT in shown
    for secret in (KEY, "q" * 30, "eyJhbGciOi", "hunter22"):
        assert secret not in shown


@pytest.mark.parametrize(
    "said",
    [
        json.dumps({"messages": [{"role": "user", "content": 'a "quoted" word: PRIVATE'}]}),
        json.dumps({"prompt": "PRIVATE\nlines"}),
        json.dumps({"choices": [{"text": "it is PRIVATE"}]}),
        json.dumps({"input": ["PRIVATE one", "two"]}),
        json.dumps({"function": {"name": "f", "arguments": '{"x": "PRIVATE"}'}}),
        str({"content": "python's own PRIVATE quotes"}),
    ],
)
def test_nothing_that_was_said_is_left(said: str) -> None:
    shown = redact.text(f"2026-11-26 INFO request: {said} took 3 ms")
    assert "PRIVATE" not in shown
    assert shown.startswith("2026-11-26 INFO request: ")


def test_what_is_known_to_be_secret_goes_wherever_it_stands() -> None:
    prompts = ["What is 2 + 2?", "What is 2 + 2? Answer in one word."]
    shown = redact.text("engine: What is 2 + 2? Answer in one word. -> What is 2 + 2?", prompts)
    assert "What is" not in shown and "one word" not in shown


@pytest.mark.parametrize(
    "line",
    ["INFO 11-26 engine.py:12] # GPU blocks: 1024, max tokens: 4096", 'GET /v1/models "200 OK"'],
)
def test_what_helps_stays(line: str) -> None:
    assert redact.text(line) == line

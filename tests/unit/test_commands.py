"""How a command line ends when somebody interrupts it."""

from __future__ import annotations

import json
import sys

import click
import pytest

from airgap import commands


@click.group()
@click.option("--json", "as_json", is_flag=True)
def tool(as_json: bool) -> None:
    """Nothing."""


@tool.command()
def work() -> None:
    """Is interrupted."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("words", [["work"], ["--json", "work"]])
def test_interrupted_ends_with_130_and_in_the_form_that_was_asked_for(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tool", *words])
    with pytest.raises(SystemExit) as e:
        commands.run(tool, "tool")
    assert e.value.code == 130
    said = capsys.readouterr().err.strip()
    if "--json" in words:
        assert json.loads(said)["exit"] == 130
        assert "run the same command again" in json.loads(said)["do"]
    else:
        assert said == "interrupted; run the same command again to go on"

"""What both command lines share: a click group that imports a command only to run it, and the one
place where errors become exit codes."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import click

from airgap.errors import SealiftError

_INTERRUPTED = 130


@dataclass(frozen=True)
class Entry:
    """A command by the module that defines it, and its line in `--help` (none: hidden)."""

    module: str
    line: str = ""


class LazyGroup(click.Group):
    """Knows its commands by name and line; `--help` imports none of them."""

    def __init__(self, *args: Any, entries: Mapping[str, Entry], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._entries = entries

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Those with a line."""
        return [n for n, e in self._entries.items() if e.line]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one; the module's attribute has its name, with '_' for '-'."""
        entry = self._entries.get(cmd_name)
        if entry is None:
            return None
        command: click.Command = getattr(
            importlib.import_module(entry.module), cmd_name.replace("-", "_")
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of commands."""
        rows = [(n, self._entries[n].line) for n in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def run(group: click.Group, name: str) -> NoReturn:
    """Run a command line; turn errors into text or JSON on stderr and an exit code."""
    as_json = "--json" in sys.argv[1:]
    try:
        code = group.main(standalone_mode=False, prog_name=name)
    except SealiftError as e:
        sys.exit(_report(e, as_json=as_json))
    except click.ClickException as e:
        sys.exit(_usage(e, as_json=as_json))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(_interrupted(as_json=as_json))
    sys.exit(code if isinstance(code, int) else 0)


def _report(e: SealiftError, *, as_json: bool) -> int:
    from airgap.render import report_error

    report_error(e, as_json=as_json)
    return e.exit_code


def _interrupted(*, as_json: bool) -> int:
    """As errors are told; 128 and the number of SIGINT, as shells say it."""
    what, todo = "interrupted", "run the same command again to go on"
    text = f"{what}; {todo}"
    if as_json:
        fields = {"event": "error", "id": what, "what": what, "why": "a signal", "do": todo}
        text = json.dumps({**fields, "exit": _INTERRUPTED})
    print(text, file=sys.stderr, flush=True)
    return _INTERRUPTED


def _usage(e: click.ClickException, *, as_json: bool) -> int:
    from airgap.errors import UsageError

    hint = "see --help"
    if isinstance(e, click.UsageError) and e.ctx is not None:
        hint = f"see `{e.ctx.command_path} --help`"
    why = "the command line does not fit"
    return _report(UsageError("usage", e.format_message(), why=why, do=hint), as_json=as_json)

"""The command line of the isolated side. Commands load when they are called, not before."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import click

from airgap import __version__
from airgap.errors import SealiftError

DEFAULT_ROOT = Path("/var/lib/airgap")

# name -> (module, one line). The line stands here so that `--help` imports no command.
_COMMANDS = {
    "trust": ("airgap.cli.trust", "Whom this host trusts: add, show."),
    "policy": ("airgap.cli.policy", "The host's own rules: install, show."),
    "verify": ("airgap.cli.verify", "Check a bundle completely; write nothing."),
    "install": ("airgap.cli.install", "Check a bundle, take it in, and serve it."),
    "status": ("airgap.cli.life", "What is installed and what serves."),
    "start": ("airgap.cli.life", "Start serving what is installed."),
    "stop": ("airgap.cli.life", "Stop serving."),
    "rollback": ("airgap.cli.life", "Serve the version that served before."),
    "run": ("airgap.cli.life", "Serve in the foreground until Ctrl-C."),
    "receipt": ("airgap.cli.life", "Print the newest receipt, to carry out."),
    "supervise": ("airgap.cli.life", ""),
    "front": ("airgap.cli.life", ""),
}
_HIDDEN = {"supervise", "front"}

_EPILOG = """\b
Example, on a host that sees this bundle for the first time:
  sha256sum -c airgap-fingerprints.txt
  python3 airgap.pyz trust add root.json
  python3 airgap.pyz install /media/usb

\b
Exit codes: 0 ok, 2 usage, 3 integrity, 4 trust, 5 policy, 6 source,
7 host not fit, 8 disk, 9 serving failed and rolled back, 130 interrupted."""


class _Lazy(click.Group):
    """Knows its commands by name and line; imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [n for n in _COMMANDS if n not in _HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(_COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(n, _COMMANDS[n][1]) for n in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Settings:
    """What the global options say; `sink` renders the events of library code."""

    def __init__(self, root: Path, *, as_json: bool, quiet: bool) -> None:
        from airgap.render import choose_sink

        self.root = root
        self.as_json = as_json
        self.sink = choose_sink(as_json=as_json, quiet=quiet)


@click.group(cls=_Lazy, epilog=_EPILOG, context_settings={"max_content_width": 100})
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="AIRGAP_ROOT",
    default=DEFAULT_ROOT,
    show_default=True,
    help="Where everything of this host lies. Nothing is written outside it.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON lines instead of text.")
@click.option("--quiet", is_flag=True, help="No progress; results and errors only.")
@click.version_option(__version__, prog_name="airgap")
@click.pass_context
def cli(ctx: click.Context, root: Path, as_json: bool, quiet: bool) -> None:
    """Checks a bundle against the officers' keys and brings up an OpenAI-compatible server, or
    leaves what was running untouched."""
    ctx.obj = Settings(Path(os.path.abspath(root)), as_json=as_json, quiet=quiet)


def main() -> None:
    """Entry point; the only place that turns errors into exit codes."""
    as_json = "--json" in sys.argv[1:]
    try:
        code = cli.main(standalone_mode=False, prog_name="airgap")
    except SealiftError as e:
        from airgap.render import report_error

        report_error(e, as_json=as_json)
        sys.exit(e.exit_code)
    except click.ClickException as e:
        _usage(e, as_json=as_json)
    except (click.Abort, KeyboardInterrupt):
        print("interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _usage(e: click.ClickException, *, as_json: bool) -> None:
    from airgap.errors import UsageError
    from airgap.render import report_error

    hint = "see --help"
    if isinstance(e, click.UsageError) and e.ctx is not None:
        hint = f"see `{e.ctx.command_path} --help`"
    why = "the command line does not fit"
    report_error(UsageError("usage", e.format_message(), why=why, do=hint), as_json=as_json)
    sys.exit(2)

"""The command ``partnerenrich``. A command's module is imported when that command runs, so that help is instant."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from partnerenrich_server import streams

if TYPE_CHECKING:
    from collections.abc import Mapping

DEBUG_VARIABLE = "PARTNERENRICH_DEBUG"

COMMANDS = {
    "run": "Enrich events from a file or a stream.",
    "hub": "Serve browsers: what they may read, and where events come in.",
    "demo": "Show enrichment at work, with nothing but what is installed.",
    "sandbox": "Serve local imitations of the partners.",
    "plugins": "List the installed partners and what each supports.",
    "check": "Ask every partner whether its settings work.",
    "explain": "Tell every decision made for one event.",
    "forget": "Forget a person or a device, and keep it forgotten.",
    "deliver": "Stage records of files for a destination, as one sealed batch.",
    "ship": "Hand sealed batches to their partners, and see them through.",
    "deliveries": "Tell what became of each batch; decide where a person has to.",
    "match": "Tell how a partner makes its digests, and why so few are ours.",
    "schema": "Print the JSON Schema of the configuration.",
    "secrets": "Make secrets.",
}


class LazyGroup(click.Group):
    """
    A group whose commands are modules below `partnerenrich_server.commands`.

    Each module has an object ``command``. What goes wrong becomes clear lines on
    stderr: exit code 2 for bad usage or configuration, 1 for a failure while running.
    """

    def __init__(self, *args: Any, summaries: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._summaries = summaries

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click asks so
        """The names of all commands."""
        return list(self._summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click asks so
        """Import one command."""
        if cmd_name not in self._summaries:
            return None
        command: click.Command = importlib.import_module(f"partnerenrich_server.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click asks so
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line, and exit."""
        streams.hold_closed()
        try:
            return super().main(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  whatever it is, this is where it becomes a message
            if os.environ.get(DEBUG_VARIABLE):
                traceback.print_exc()
            failure = importlib.import_module("partnerenrich_server.failures").explained(error)
            failure.show()
            streams.drop_unwritten()
            sys.exit(failure.exit_code)


@click.group(cls=LazyGroup, summaries=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="partnerenrich-server", prog_name="partnerenrich")
def main() -> None:
    """
    Resolve visitors with partners, fetch their attributes, attach both to events.

    Exit codes: 0 done, 1 failed while running, 2 bad usage or configuration.
    PARTNERENRICH_DEBUG=1 shows the traceback of a failure, too.
    """

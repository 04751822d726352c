"""``partnerenrich secrets``: make secrets."""

from __future__ import annotations

import base64
import os

import click


@click.group()
def command() -> None:
    """Make secrets."""


@command.command("generate-key")
def generate_key() -> None:
    """
    Print a new key for the fingerprints in the memory.

    Put it into an environment variable and name that in the configuration:
    key: ${PARTNERENRICH_KEY}. All processes that share a store need the same
    key; with another key the memory is empty.
    """
    click.echo(base64.b64encode(os.urandom(32)).decode())

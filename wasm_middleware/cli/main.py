"""The commands, and what they have in common."""

from __future__ import annotations

import click

import wasm_middleware
from wasm_middleware.cli import output
from wasm_middleware.cli.check import check
from wasm_middleware.cli.inspect import inspect
from wasm_middleware.config import LOG_LEVELS, json_schema
from wasm_middleware.errors import WasmMiddlewareError

__all__ = ["main"]


class _Commands(click.Group):
    """Ends a command with the message of our own errors, and with exit code 1."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except WasmMiddlewareError as error:
            output.error(str(error))
            ctx.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(wasm_middleware.__version__, prog_name="wasm-middleware")
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    help="What is logged to stderr, and the file's own log_level. Default: warn.",
)
@click.pass_context
def main(context: click.Context, log_level: str | None) -> None:
    """Run Proxy-Wasm plugins inside ASGI applications: check files, inspect modules."""
    context.obj = log_level


@main.command()
def schema() -> None:
    """Print the JSON schema of configuration files, for editors.

    \b
    Save it, and begin a file with
        # yaml-language-server: $schema=./wasm-middleware.schema.json
    """
    output.echo_json(json_schema())


main.add_command(check)
main.add_command(inspect)

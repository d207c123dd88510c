"""The command tree of `floopy`."""

import typer

from floopy.commands.accounts import accounts
from floopy.commands.backends import backends
from floopy.commands.batches import batches
from floopy.commands.demo import demo
from floopy.commands.dlq import dlq
from floopy.commands.keys import keys
from floopy.commands.migrate import migrate
from floopy.commands.orgs import orgs
from floopy.commands.up import up
from floopy.commands.verify import verify


def make_app() -> typer.Typer:
    app = typer.Typer(
        name="floopy",
        help="Run Floopy Batch on this machine, send it batches, look after organisations.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.command()(up)
    app.command()(verify)
    for group in (batches, orgs, keys, accounts):
        app.add_typer(group)
    app.command()(migrate)
    app.add_typer(dlq)
    app.command(hidden=True)(demo)
    app.command(hidden=True)(backends)
    return app

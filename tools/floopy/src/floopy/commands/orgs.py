"""`floopy orgs`: organisations."""

from typing import Annotated

import typer

from floopy.commands.administration import DataDirOption, JsonOption, Row, Stores, administer, show
from floopy_common.domain.plans import PLANS

orgs = typer.Typer(name="orgs", help="Look after organisations.", no_args_is_help=True)


@orgs.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    plan: Annotated[str, typer.Option(help=f"One of {', '.join(PLANS)}.")],
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an organisation."""

    async def work(stores: Stores) -> Row:
        return {"id": (await stores.orgs.create(name, plan))["_id"]}

    show(administer("orgs create", data_dir, work), as_json)


@orgs.command(name="list")
def list_(data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Show every organisation, oldest first."""

    async def work(stores: Stores) -> list[Row]:
        found = await stores.mongo.collection("orgs").find_all({}, sort=[("created_at", 1), ("_id", 1)])
        return [
            {"id": org["_id"], "name": org["name"], "plan": org["plan"], "created_at": org["created_at"]}
            for org in found
        ]

    show(administer("orgs list", data_dir, work), as_json)

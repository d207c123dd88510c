"""`floopy keys`: API keys of an organisation."""

from typing import Annotated

import typer

from floopy.commands.administration import (
    DataDirOption,
    JsonOption,
    OrgOption,
    RefusedError,
    Row,
    Stores,
    administer,
    show,
)

keys = typer.Typer(name="keys", help="Look after API keys.", no_args_is_help=True)


@keys.command()
def create(
    org: OrgOption,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "floopy keys create",
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an API key; it is shown this once."""

    async def work(stores: Stores) -> Row:
        document, api_key = await stores.keys.create(await stores.known_org(org), name)
        return {"id": document["_id"], "org_id": org, "api_key": api_key.get_secret_value()}

    show(administer("keys create", data_dir, work), as_json)


@keys.command(name="list")
def list_(org: OrgOption, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Show an organisation's keys, oldest first; the keys themselves nobody knows any more."""

    async def work(stores: Stores) -> list[Row]:
        found = await stores.keys.list_for_org(await stores.known_org(org))
        return [
            {
                "id": key["_id"],
                "name": key["name"],
                "api_key": f"{key['prefix']}...{key['last4']}",
                "created_at": key["created_at"],
                "revoked_at": key["revoked_at"],
            }
            for key in found
        ]

    show(administer("keys list", data_dir, work), as_json)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="KEY_ID")],
    org: OrgOption,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key useless for good; services notice within the time of their key cache."""

    async def work(stores: Stores) -> Row:
        if not await stores.keys.revoke(org, key_id):
            raise RefusedError(f"organisation {org} has no key {key_id} in use")
        return {"id": key_id, "revoked": True}

    show(administer("keys revoke", data_dir, work), as_json)

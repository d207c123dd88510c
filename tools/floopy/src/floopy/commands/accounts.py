"""`floopy accounts`: an organisation's accounts at the providers."""

import sys
from typing import Annotated

import typer
from pydantic import SecretStr

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
from floopy.commands.failure import fail
from floopy_common.stores.accounts import PROVIDERS

accounts = typer.Typer(name="accounts", help="Look after provider accounts.", no_args_is_help=True)


@accounts.command()
def create(
    org: OrgOption,
    provider: Annotated[str, typer.Option(help=f"One of {', '.join(PROVIDERS)}.")],
    base_url: Annotated[
        str | None, typer.Option(help="Where this account is reached. [default: the provider's setting]")
    ] = None,
    api_key_stdin: Annotated[
        bool, typer.Option("--api-key-stdin", help="Read the provider's key from standard input.")
    ] = False,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give an organisation an account at a provider."""
    if not api_key_stdin:
        fail("floopy accounts create: give the key with --api-key-stdin, where no shell history keeps it")
    api_key = SecretStr(sys.stdin.read().strip())

    async def work(stores: Stores) -> Row:
        org_id = await stores.known_org(org)
        return {"id": (await stores.accounts.create(org_id, provider, base_url, api_key))["_id"]}

    show(administer("accounts create", data_dir, work), as_json)


@accounts.command(name="list")
def list_(org: OrgOption, data_dir: DataDirOption = None, as_json: JsonOption = False) -> None:
    """Show an organisation's accounts, oldest first."""

    async def work(stores: Stores) -> list[Row]:
        found = await stores.accounts.list_for_org(await stores.known_org(org))
        return [
            {
                "id": account["_id"],
                "provider": account["provider"],
                "base_url": account["base_url"],
                "created_at": account["created_at"],
            }
            for account in found
        ]

    show(administer("accounts list", data_dir, work), as_json)


@accounts.command()
def delete(
    account_id: Annotated[str, typer.Argument(metavar="ACCOUNT_ID")],
    org: OrgOption,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Offer an account for no new batch; what runs on it is still collected."""

    async def work(stores: Stores) -> Row:
        if not await stores.accounts.delete(org, account_id):
            raise RefusedError(f"organisation {org} has no account {account_id}")
        return {"id": account_id, "deleted": True}

    show(administer("accounts delete", data_dir, work), as_json)

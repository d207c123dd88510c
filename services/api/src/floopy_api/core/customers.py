"""What creating a batch needs to know of its organisation, remembered for a moment."""

from floopy_api.core.authentication import TimedCache
from floopy_api.core.create import choose_account
from floopy_api.errors import BadRequest, Unauthenticated
from floopy_api.ports import Accounts, Document, Monotonic, Orgs

_REMEMBERED = 5_000
"""Organisations: some kilobytes each."""


class Customers:
    """`ttl` seconds may pass until a changed plan or a removed account counts; a new account does at once."""

    def __init__(self, orgs: Orgs, accounts: Accounts, ttl: float, monotonic: Monotonic) -> None:
        self._orgs = orgs
        self._accounts = accounts
        self._known: TimedCache[tuple[Document, list[Document]]] = TimedCache(ttl, _REMEMBERED, monotonic)

    async def choose(self, org_id: str, wanted: str | None) -> tuple[Document, Document]:
        """The organisation and the account its batch runs on; BadRequest names the choices."""
        known = self._known.get(org_id)
        if known is not None:
            org, accounts = known
            try:
                return org, choose_account(accounts, wanted)
            except BadRequest:
                self._known.drop(org_id)
        org, accounts = await self._read(org_id)
        return org, choose_account(accounts, wanted)

    async def _read(self, org_id: str) -> tuple[Document, list[Document]]:
        org = await self._orgs.get(org_id)
        if org is None:
            raise Unauthenticated("The organisation of this API key does not exist any more.")
        found = org, await self._accounts.list_for_org(org_id)
        self._known.keep(org_id, found)
        return found

"""Models: what an organisation's provider accounts can batch."""

from collections.abc import Sequence

from floopy_api.core.authentication import Caller
from floopy_api.core.rules import shortened
from floopy_api.errors import NotFound
from floopy_api.ports import AccountModels, Accounts, Document, ModelCatalogue, Now
from floopy_common.openai.endpoints import SUPPORTED_ENDPOINTS
from floopy_common.openai.models import ModelList, ModelObject

Known = Sequence[tuple[str, Sequence[Document]]]
"""Providers, one an account, and what each said of its models."""


class Models:
    def __init__(
        self, accounts: Accounts, known: AccountModels, catalogue: ModelCatalogue, *, now: Now
    ) -> None:
        self._accounts = accounts
        self._known = known
        self._catalogue = catalogue
        self._now = now

    async def list(self, caller: Caller) -> ModelList:
        """Each provider's by name, the oldest account's provider first."""
        now = self._now()
        found: dict[str, set[str]] = {}
        for provider, said in await self._of_accounts(caller):
            found.setdefault(provider, set()).update(self._catalogue.list(provider, now, said))
        return ModelList(
            data=[
                ModelObject(id=model, owned_by=provider)
                for provider, models in found.items()
                for model in sorted(models)
            ]
        )

    async def get(self, caller: Caller, model: str) -> ModelObject:
        """The model under the name asked for; NotFound where no account of the caller's can batch it."""
        now = self._now()
        for provider, said in await self._of_accounts(caller):
            if self._catalogue.knows(provider, model, now, said):
                return ModelObject(id=model, owned_by=provider)
        raise NotFound(
            f"The model '{shortened(model)}' does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )

    async def _of_accounts(self, caller: Caller) -> Known:
        """The organisation's accounts that take batches today, oldest first."""
        accounts = [
            account
            for account in await self._accounts.list_for_org(caller.org_id)
            if SUPPORTED_ENDPOINTS.get(account["provider"])
        ]
        known = await self._known.of_accounts([account["_id"] for account in accounts])
        return [(account["provider"], known.get(account["_id"], ())) for account in accounts]

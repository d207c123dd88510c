"""Models: what an organisation's provider accounts can batch."""

from collections.abc import Sequence

from floopy_api.core.authentication import Caller
from floopy_api.core.rules import shortened
from floopy_api.errors import NotFound
from floopy_api.ports import Accounts, ModelCatalogue, Now
from floopy_common.openai.endpoints import SUPPORTED_ENDPOINTS
from floopy_common.openai.models import ModelList, ModelObject


class Models:
    def __init__(self, accounts: Accounts, catalogue: ModelCatalogue, *, now: Now) -> None:
        self._accounts = accounts
        self._catalogue = catalogue
        self._now = now

    async def list(self, caller: Caller) -> ModelList:
        now = self._now()
        return ModelList(
            data=[
                ModelObject(id=model, owned_by=provider)
                for provider in await self._providers(caller)
                for model in self._catalogue.list(provider, now)
            ]
        )

    async def get(self, caller: Caller, model: str) -> ModelObject:
        """The model under the name asked for; NotFound where no account of the caller's can batch it."""
        now = self._now()
        for provider in await self._providers(caller):
            if self._catalogue.knows(provider, model, now):
                return ModelObject(id=model, owned_by=provider)
        raise NotFound(
            f"The model '{shortened(model)}' does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )

    async def _providers(self, caller: Caller) -> Sequence[str]:
        """Providers of the organisation's accounts that take batches today, oldest account first."""
        accounts = await self._accounts.list_for_org(caller.org_id)
        named = dict.fromkeys(account["provider"] for account in accounts)
        return [provider for provider in named if SUPPORTED_ENDPOINTS.get(provider)]

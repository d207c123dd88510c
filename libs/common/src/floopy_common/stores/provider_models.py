"""What accounts' providers say of their models: fetched by the submitter, read by whoever wants to know."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from floopy_common.chassis.mongo import Document, Mongo


class ProviderModelStore:
    """The collection `provider_models`, one row an account, replaced whole."""

    def __init__(self, mongo: Mongo) -> None:
        self._models = mongo.collection("provider_models")

    async def get(self, account_id: str) -> Document | None:
        """`{source, fetched_at, models}`; `source` is the base URL that said so."""
        return await self._models.find_one({"_id": account_id})

    async def put(self, account_id: str, source: str, models: Sequence[Document], now: datetime) -> None:
        """Replace what was known; of two at once either stays."""
        row = {"source": source, "fetched_at": now, "models": list(models)}
        await self._models.upsert({"_id": account_id}, {"$set": row})

    async def of_accounts(self, account_ids: Iterable[str]) -> dict[str, list[Document]]:
        """The models of those of the accounts of which any are known."""
        rows = await self._models.find_all({"_id": {"$in": list(account_ids)}}, {"models": 1})
        return {row["_id"]: row["models"] for row in rows}

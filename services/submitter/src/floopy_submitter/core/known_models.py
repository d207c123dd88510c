"""What each account's models take: its provider is asked once in a while, and no plan waits for it long."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from floopy_common.providers.anthropic.capabilities import ModelTable
from floopy_common.providers.port import AccountMissing, ProviderDirectory, ProviderError, TellsModels
from floopy_common.settings import AnthropicModelSettings
from floopy_submitter.ports import Document, ModelsReport, Now, ProviderModels

_log = logging.getLogger(__name__)

_ACCOUNTS = 100
"""Accounts whose table a process remembers, some 60 KB each; the rows of the others are a read away."""
_RETRY = 60.0
"""Seconds after which a provider that could not say is asked again, by a plan that needs it."""


@dataclass(frozen=True)
class ModelTimes:
    """Seconds: what is known is good for `ttl` (0: nobody is asked), a plan waits for `wait`."""

    ttl: float
    wait: float


@dataclass(frozen=True)
class _Known:
    table: ModelTable
    until: datetime


class KnownModels:
    """Bundled rows, over them the Models API as an account sees it, over both the operator's word."""

    def __init__(
        self,
        *,
        overrides: Mapping[str, AnthropicModelSettings],
        providers: ProviderDirectory,
        store: ProviderModels,
        times: ModelTimes,
        now: Now,
        report: ModelsReport,
    ) -> None:
        self._overrides = overrides
        self._providers = providers
        self._store = store
        self._times = times
        self._now = now
        self._report = report
        self._bundled = ModelTable(overrides)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, asyncio.Task[None]] = {}

    async def of(self, account_id: str) -> ModelTable:
        """The account's table as well as it is known now; what the provider does about it raises nothing."""
        if not self._times.ttl:
            return self._bundled
        known = self._known.get(account_id)
        if known is None or known.until <= self._now():
            await asyncio.wait([self._ask(account_id)], timeout=self._times.wait)
            known = self._known.get(account_id)
        return self._bundled if known is None else known.table

    def _ask(self, account_id: str) -> "asyncio.Task[None]":
        """One refresh for all plans that want it; it goes on when they have stopped waiting."""
        task = self._asking.get(account_id)
        if task is None:
            task = self._asking[account_id] = asyncio.create_task(self._refresh(account_id))
            task.add_done_callback(lambda ended: self._asked(account_id, ended))
        return task

    def _asked(self, account_id: str, ended: "asyncio.Task[None]") -> None:
        del self._asking[account_id]
        if not ended.cancelled() and (error := ended.exception()) is not None:
            _log.error("an account's models stay unknown", exc_info=error, extra=_event(account_id))

    async def _refresh(self, account_id: str) -> None:
        now = self._now()
        row = None
        try:
            client = await self._providers.for_account(account_id)
            if not isinstance(client, TellsModels):
                return
            row = await self._store.get(account_id)
            if row is not None and row["source"] != client.base_url:
                row = None
            if row is not None and self._is_fresh(row, now):
                self._remember(account_id, row["models"], row["fetched_at"] + self._ttl)
                self._report.models("stored")
                return
            models = await client.list_models()
        except (ProviderError, AccountMissing) as error:
            self._make_do(account_id, row)
            _log.warning(
                "an account's models could not be asked for",
                extra={**_event(account_id), "cause": str(error)},
            )
            self._report.models("failed")
            return
        self._remember(account_id, models, now + self._ttl)
        self._report.models("fetched")
        await self._store.put(account_id, client.base_url, models, now)

    @property
    def _ttl(self) -> timedelta:
        return timedelta(seconds=self._times.ttl)

    def _is_fresh(self, row: Document, now: datetime) -> bool:
        fetched: datetime = row["fetched_at"]
        return now < fetched + self._ttl

    def _make_do(self, account_id: str, row: Document | None) -> None:
        """With what was known before, however old; with what is bundled if nothing was."""
        until = self._now() + timedelta(seconds=min(self._times.ttl, _RETRY))
        known = self._known.get(account_id)
        if known is not None:
            self._keep(account_id, _Known(known.table, until))
        else:
            self._remember(account_id, row["models"] if row is not None else (), until)

    def _remember(self, account_id: str, models: Sequence[Document], until: datetime) -> None:
        self._keep(account_id, _Known(ModelTable(self._overrides, models), until))

    def _keep(self, account_id: str, known: _Known) -> None:
        self._known[account_id] = known
        self._known.move_to_end(account_id)
        if len(self._known) > _ACCOUNTS:
            self._known.popitem(last=False)


def _event(account_id: str) -> Document:
    return {"event": "models_unknown", "account_id": account_id}

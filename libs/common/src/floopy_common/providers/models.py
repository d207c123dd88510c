"""Which models can be batched at each provider, as far as we, its Models API and an operator know."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from floopy_common.providers.anthropic.capabilities import ROUTING_PREFIX, ROWS, ModelTable, is_described
from floopy_common.providers.pricing import PriceTable
from floopy_common.settings import AnthropicModelSettings

_ANTHROPIC = "anthropic"

Said = Sequence[Mapping[str, Any]]
"""What an account's Models API says (models_api.py); empty where it was not asked yet."""


class BatchModels:
    """OpenAI's from the price table; Anthropic's as a plan would take them, whoever knows of them."""

    def __init__(self, prices: PriceTable, configured: Mapping[str, AnthropicModelSettings]) -> None:
        self._prices = prices
        self._configured = configured

    def list(self, provider: str, at: datetime, said: Said = ()) -> list[str]:
        """Model ids, each once, by name; of the bundled ones those that the account has."""
        if provider != _ANTHROPIC:
            return self._prices.batch_models(provider, at)
        table = ModelTable(self._configured, said)
        bundled = [name for name in ROWS if not said or name in table.listed]
        names = {*bundled, *table.listed, *self._configured}
        return sorted(name for name in names if self._is_claude(name, table))

    def knows(self, provider: str, model: str, at: datetime, said: Said = ()) -> bool:
        """Whether a name means a model that can be batched; dated snapshots are not listed but known."""
        if provider != _ANTHROPIC:
            return self._prices.is_batched(provider, model, at)
        return self._is_claude(model, ModelTable(self._configured, said))

    def _is_claude(self, name: str, table: ModelTable) -> bool:
        model = table.resolve(name)
        if model is None or not model.capabilities.batch:
            return False
        configured = name.removeprefix(ROUTING_PREFIX) in self._configured
        return configured or model.id in table.listed or is_described(model.id)

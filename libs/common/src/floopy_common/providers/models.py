"""Which models can be batched at each provider, as far as what we bundle and what an operator says know."""

from collections.abc import Mapping
from datetime import datetime

from floopy_common.providers.anthropic.capabilities import ROUTING_PREFIX, ROWS, ModelTable, is_described
from floopy_common.providers.pricing import PriceTable
from floopy_common.settings import AnthropicModelSettings

_ANTHROPIC = "anthropic"


class BatchModels:
    """OpenAI's from the price table, Anthropic's from its capability table and the operator's own word."""

    def __init__(self, prices: PriceTable, configured: Mapping[str, AnthropicModelSettings]) -> None:
        self._prices = prices
        self._configured = configured
        self._table = ModelTable(configured)

    def list(self, provider: str, at: datetime) -> list[str]:
        """Model ids, each once, by name."""
        if provider == _ANTHROPIC:
            return sorted(name for name in {*ROWS, *self._configured} if self._is_claude(name))
        return self._prices.batch_models(provider, at)

    def knows(self, provider: str, model: str, at: datetime) -> bool:
        """Whether a name means a model that can be batched; dated snapshots are not listed but known."""
        if provider == _ANTHROPIC:
            return self._is_claude(model)
        return self._prices.is_batched(provider, model, at)

    def _is_claude(self, name: str) -> bool:
        model = self._table.resolve(name)
        if model is None or not model.capabilities.batch:
            return False
        return name.removeprefix(ROUTING_PREFIX) in self._configured or is_described(model.id)

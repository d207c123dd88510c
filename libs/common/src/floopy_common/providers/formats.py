"""Which provider writes its results how."""

from collections.abc import Mapping

from floopy_common.providers import unsent
from floopy_common.providers.anthropic.result import AnthropicResults
from floopy_common.providers.openai.result import OpenAiResults
from floopy_common.providers.port import ResultFormat
from floopy_common.providers.unsent import UnsentResults

RESULT_FORMATS: Mapping[str, ResultFormat] = {
    "openai": OpenAiResults(),
    "anthropic": AnthropicResults(),
    unsent.PROVIDER: UnsentResults(),
}

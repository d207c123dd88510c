"""Why a line cannot run on Anthropic, in OpenAI's own terms."""

import msgspec

from floopy_common.openai.errors import INVALID_REQUEST, ErrorEnvelope, ErrorObject

_encode = msgspec.json.Encoder().encode


class Refused(msgspec.Struct, frozen=True, gc=False):
    """A line that is never sent upstream; `body` is what its error-file line carries."""

    message: str
    param: str | None
    code: str | None
    status: int = 400

    @property
    def body(self) -> bytes:
        return _encode(ErrorEnvelope(ErrorObject(self.message, INVALID_REQUEST, self.param, self.code)))


class LineRefused(Exception):  # noqa: N818 - a way out of a translation, not an error of the program
    def __init__(self, message: str, *, param: str | None, code: str | None, status: int = 400) -> None:
        super().__init__(message)
        self.refused = Refused(message, param, code, status)


def unsupported_parameter(param: str) -> LineRefused:
    message = f"Unsupported parameter: '{param}' is not supported with this model."
    return LineRefused(message, param=param, code="unsupported_parameter")


def unsupported_value(param: str, why: str) -> LineRefused:
    return LineRefused(f"Unsupported value: '{param}' {why}", param=param, code="unsupported_value")


def invalid_value(param: str, why: str) -> LineRefused:
    return LineRefused(f"Invalid value for '{param}': {why}", param=param, code="invalid_value")


def invalid_type(param: str | None, wanted: str) -> LineRefused:
    where = f" for '{param}'" if param else ""
    return LineRefused(f"Invalid type{where}: {wanted}.", param=param, code="invalid_type")


def missing(param: str) -> LineRefused:
    message = f"Missing required parameter: '{param}'."
    return LineRefused(message, param=param, code="missing_required_parameter")


def unknown_parameter(param: str) -> LineRefused:
    return LineRefused(f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")


def not_json(why: str) -> LineRefused:
    return LineRefused(f"The request body cannot be read: {why}", param=None, code="invalid_value")

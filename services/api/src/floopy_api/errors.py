"""Refusals: what is wrong with a request, in words that stand alone; the middleware knows their status."""

from floopy_common.domain.errors import FloopyError


class Refusal(FloopyError):  # noqa: N818 - the subclasses say what happened
    """A request that is not answered as asked; `param` names the part at fault, `code` the rule."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


class BadRequest(Refusal):
    """The request itself is wrong."""


class Unauthenticated(Refusal):
    """No key, or none of ours."""


class NotFound(Refusal):
    """Unknown to this organisation, which is all anybody may learn."""


class TooSlow(Refusal):
    """The body did not arrive in time."""


class Conflict(Refusal):
    """The request contradicts what is; sending it again changes nothing."""


class TooLarge(Refusal):
    """More bytes than are taken in one request."""


class UnsupportedEncoding(Refusal):
    """A body in an encoding we do not undo."""


class UnsupportedMediaType(Refusal):
    """A body that says it is something else than what is taken."""


class RangeUnsatisfiable(Refusal):
    """A range behind the end of a file of `size` bytes."""

    def __init__(self, size: int) -> None:
        super().__init__(f"The requested range is outside the file, which has {size} bytes.", param="Range")
        self.size = size


class TooMany(Refusal):
    """More requests than the organisation's share; worth another try after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message, code="rate_limit_exceeded")
        self.retry_after = retry_after


class QuotaExceeded(Refusal):
    """The organisation's plan has nothing left for this month."""

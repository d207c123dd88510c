"""What only this service raises."""

from floopy_common.domain.errors import FloopyError


class UnsafeSettings(FloopyError):  # noqa: N818 - says what is wrong
    """Settings under which a provider batch could be created twice."""


class TooLate(FloopyError):  # noqa: N818 - says what happened
    """The time in which the create call may be made has passed; nothing was sent."""


class WrongPlan(FloopyError):  # noqa: N818 - likewise
    """The batch is not, or no longer, in progress with this shard's plan."""


class LinesRefused(FloopyError):  # noqa: N818 - likewise
    """Lines that were to be sent cannot be translated any more: the translator is not the one of the plan."""


class NoTurn(FloopyError):  # noqa: N818 - likewise
    """Somebody else creates on the account, or what they created is not accounted for yet."""

"""What can go wrong in the reconciler beyond the product's own error tree."""

from floopy_common.domain.errors import FloopyError


class ResultsTooLarge(FloopyError):  # noqa: N818 - says what happened
    """A results file larger than any this service takes; fetching it again gives the same."""


class RendererLost(FloopyError):  # noqa: N818 - says what happened
    """The process that renders died, hung, or failed as nobody expected; it may have been the segment."""


class RendererUnable(FloopyError):  # noqa: N818 - likewise
    """There can be no such process here, or it cannot read what it is given; it is not the segment."""

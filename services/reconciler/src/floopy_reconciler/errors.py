"""What can go wrong in the reconciler beyond the product's own error tree."""

from floopy_common.domain.errors import FloopyError


class ResultsTooLarge(FloopyError):  # noqa: N818 - says what happened
    """A results file larger than any this service takes; fetching it again gives the same."""

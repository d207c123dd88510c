"""The error tree: what can go wrong in the domain, and which of it is worth trying again."""


class FloopyError(Exception):
    """Root of every error this product raises on purpose."""


class Transient(FloopyError):  # noqa: N818 - an adjective reads better where it is caught
    """Trying again later can succeed; nothing about the input is wrong."""


class Invalid(FloopyError):  # noqa: N818 - likewise
    """The input can never be taken; it belongs in the dead letters or back with its sender."""


class LeaseLost(FloopyError):  # noqa: N818 - an event, not a fault
    """Somebody else owns the work now; whatever this worker computed must be dropped."""


class IllegalTransition(FloopyError):  # noqa: N818 - likewise
    """A status move that OpenAI's lattice does not have."""


class BlobMissing(FloopyError):  # noqa: N818 - likewise
    """No live blob of that id."""


class BlobCorrupt(FloopyError):  # noqa: N818 - likewise
    """A blob whose chunks do not add up to what its document says."""


class WrongKey(FloopyError):  # noqa: N818 - likewise
    """A sealed secret that this key, organisation or base URL does not open."""

"""What the server says of rows it did not store: whose fault it is, and why."""

from collections.abc import Sequence

from floopy_common.chassis.mongo import DatabaseError, Document

_DUPLICATE_KEY = 11000
_PASSING = frozenset(
    {
        *(6, 7, 13, 24, 46, 50, 89, 91, 112, 189, 262),
        *(8000, 9001, 10058, 10107, 11600, 11601, 11602, 13435, 13436, 14031),
    }
)
"""Codes that say nothing about the document: the server's state, a full disk, a time limit, a conflict."""
_WHOLE = frozenset({22, 10334})
"""Codes with which the server refuses a whole insert for one document: no BSON, too large."""


def refusals(error: Exception) -> dict[int, str] | None:
    """Position and reason of each row the server refused, None where some row is the cause but not which.

    Anything that is not about a row is raised again.
    """
    if not isinstance(error, DatabaseError):
        # the driver could not encode a row; what the network or the process does is no row's fault
        if isinstance(error, OSError | RuntimeError):
            raise error
        return None
    if getattr(error, "code", None) in _WHOLE:
        return None
    details = getattr(error, "details", None) or {}
    failures = [one for one in told(error) if one["code"] != _DUPLICATE_KEY]
    if not failures or details.get("writeConcernErrors") or any(one["code"] in _PASSING for one in failures):
        raise error
    return {one["index"]: f"MongoDB {one['code']}: {one['errmsg']}" for one in failures}


def told(error: Exception) -> Sequence[Document]:
    """What the server says of each row it did not store; a single write's details are of its one failure."""
    details: Document = getattr(error, "details", None) or {}
    one_by_one: Sequence[Document] = [details] if "index" in details else details.get("writeErrors", [])
    return one_by_one

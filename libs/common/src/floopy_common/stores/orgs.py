"""Organisations."""

from floopy_common.chassis.clock import Clock, SystemClock
from floopy_common.chassis.mongo import Document, Mongo
from floopy_common.domain.errors import Invalid
from floopy_common.domain.ids import new_org_id
from floopy_common.domain.plans import plan_named

CONTENT_POLICIES = ("reference", "inline", "none")
"""How much of a line's content its events carry."""

DEFAULT_SAMPLE_RATE = 0.05
"""Share of an organisation's lines that the judge reads unless it asks for another."""


class OrgStore:
    """The collection `orgs`."""

    def __init__(self, mongo: Mongo, clock: Clock | None = None) -> None:
        self._orgs = mongo.collection("orgs")
        self._clock = clock or SystemClock()

    async def create(
        self,
        name: str,
        plan: str,
        *,
        content_policy: str = "reference",
        sample_rate: float = DEFAULT_SAMPLE_RATE,
    ) -> Document:
        """A new organisation; Invalid for a plan, policy or rate that does not exist."""
        if content_policy not in CONTENT_POLICIES:
            raise Invalid(
                f"unknown content policy {content_policy!r}; choose of {', '.join(CONTENT_POLICIES)}"
            )
        if not 0 <= sample_rate <= 1:
            raise Invalid(f"the sample rate is a share between 0 and 1, not {sample_rate}")
        org: Document = {
            "_id": new_org_id(),
            "name": name,
            "plan": plan_named(plan).name,
            "content_policy": content_policy,
            "sample_rate": sample_rate,
            "created_at": self._clock.now(),
        }
        await self._orgs.insert_new(org)
        return org

    async def get(self, org_id: str) -> Document | None:
        return await self._orgs.find_one({"_id": org_id})

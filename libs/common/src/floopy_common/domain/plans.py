"""What an organisation's plan includes."""

from dataclasses import dataclass

from floopy_common.domain.errors import Invalid


@dataclass(frozen=True)
class Plan:
    """A commercial plan: `monthly_line_cap` lines a calendar month (None: no cap), retention in days."""

    name: str
    feedback: bool
    monthly_line_cap: int | None
    retention_days: int


PLANS = {
    plan.name: plan
    for plan in (
        Plan("free", feedback=False, monthly_line_cap=100_000, retention_days=30),
        Plan("pro", feedback=True, monthly_line_cap=50_000_000, retention_days=30),
        Plan("enterprise", feedback=True, monthly_line_cap=None, retention_days=30),
    )
}


def plan_named(name: str) -> Plan:
    """The plan called `name`; Invalid names the choices."""
    plan = PLANS.get(name)
    if plan is None:
        raise Invalid(f"unknown plan {name!r}; the plans are {', '.join(PLANS)}")
    return plan

"""A submitter that sends to Anthropic: its calls, its key, its settings."""

CREATE = "messages.batches.create"
LIST = "messages.batches.list"
KEY = "sk-ant-of-this-test"
PARTS = ("planning", "submitting", "recovering", "sweeping")
SKEW = {"FLOOPY_SUBMIT__CLOCK_SKEW": "0.1"}
"""The simulator and the database share this machine's clock."""

"""What the API counts; no label names an organisation, a key or an id."""

from prometheus_client import Counter, Histogram

REQUESTS = Counter(
    "floopy_api_requests_total",
    "Requests answered; status 499: the client left first.",
    ["route", "method", "status"],
)
REQUEST_SECONDS = Histogram(
    "floopy_api_request_seconds",
    "Seconds from a request's head to the end of its answer.",
    ["route", "method"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0),
)
RECEIVED_BYTES = Counter("floopy_api_received_bytes_total", "Bytes of request bodies read.", ["route"])
SENT_BYTES = Counter("floopy_api_sent_bytes_total", "Bytes of answers written.", ["route"])

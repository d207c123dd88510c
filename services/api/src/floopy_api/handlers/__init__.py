"""The API's HTTP surface."""

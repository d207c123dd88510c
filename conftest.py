"""Loads the plugin that gives every suite a real MongoDB and real brokers."""

pytest_plugins = ["floopy.testing"]

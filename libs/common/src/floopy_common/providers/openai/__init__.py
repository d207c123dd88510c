"""OpenAI's native batch API, and servers that speak it."""

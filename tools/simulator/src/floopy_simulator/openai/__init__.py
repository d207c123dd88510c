"""OpenAI's half: files, batches, chat completions and models."""

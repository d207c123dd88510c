"""The wire types of OpenAI's public surface, and nothing else."""

"""Scratch disk and Kafka offsets behind the ports."""

"""The analysts' API: what leaves on Kafka."""

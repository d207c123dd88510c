"""Where deliveries come in."""

"""How a service runs: MongoDB, Kafka, leases, loops, probes, logs."""

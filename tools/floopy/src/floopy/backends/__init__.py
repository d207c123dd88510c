"""MongoDB and Kafka-compatible brokers as child processes of this machine, for `floopy up` and for tests."""

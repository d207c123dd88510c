"""The whole system on one machine: what `floopy up` starts, keeps alive and writes down."""

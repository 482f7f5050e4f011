"""Beyond one process and one machine: fronts and hosts that speak over NATS. See README.md."""

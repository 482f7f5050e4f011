"""What operators see of the gateway: the log."""

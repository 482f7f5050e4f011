"""What of the machine's files a worker sees: its program and what that needs, the mounts of the
settings, and folders that outlive a worker."""

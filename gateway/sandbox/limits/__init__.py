"""What a worker may use of the machine: system calls, memory, processes and a user's share."""

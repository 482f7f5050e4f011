"""The only way out of a sandbox: what an agent may reach, and the process that takes it there."""

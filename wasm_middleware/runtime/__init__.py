"""From settings to running plugins: loading, instances, chains, and what is shared by a process."""

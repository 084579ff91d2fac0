"""Images: ours, and those of the servers where none can be pulled."""

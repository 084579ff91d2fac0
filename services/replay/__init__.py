"""A file of events onto the live topics, labels following their delay in stream time."""

"""States of a new deployment made of a file and of what Kafka has, so that it need not have seen all of it."""

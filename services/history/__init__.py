"""What must outlive Redis and Kafka: scores into Cassandra, and labels joined with the scores kept there."""

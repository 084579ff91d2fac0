"""Who may do what: each service's least rights, in one table, and their grant on Kafka, Redis and Cassandra."""

"""What the pipeline costs and how fast it is, measured beside a plain Faust agent and beside doing nothing."""

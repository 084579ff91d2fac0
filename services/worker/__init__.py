"""A feature and scoring worker."""

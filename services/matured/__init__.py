"""Negatives that nobody sends: events whose horizon has passed are labelled, a week late by the stream's clock."""

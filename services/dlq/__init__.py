"""The dead letters of a use case: listed, shown, and sent back once their cause is gone."""

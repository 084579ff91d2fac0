"""What must be there before the services start."""

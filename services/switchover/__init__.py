"""When a deployment has taken over from another, so that the other may be stopped."""

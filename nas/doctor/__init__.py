"""What this machine has for the service, and what it lacks: looked at, never changed."""

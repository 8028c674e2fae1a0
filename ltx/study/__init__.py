"""What is asked of a finished run."""

"""The experiment as typed data: its keys, how it is composed, and what it is called."""

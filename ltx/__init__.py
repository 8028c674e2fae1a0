"""ltx: a command-line laboratory for the lottery ticket hypothesis."""

__version__ = "0.1.0"

"""The command line: one function a command, and the process around it."""

from ltx.cli import studies as studies
from ltx.cli.commands import app
from ltx.cli.process import main

__all__ = ["app", "main"]

"""`python -m ltx`."""

from ltx.cli import main

main()

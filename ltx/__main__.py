"""The command `ltx`, and `python -m ltx`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being loaded is no traceback either."""
    try:
        from ltx.cli import main as run
    except KeyboardInterrupt:
        run = stopped
    run()


def stopped() -> None:
    """Leave as after any Ctrl-C."""
    print("ltx: stopped", file=sys.stderr)
    sys.exit(130)


if __name__ == "__main__":
    main()

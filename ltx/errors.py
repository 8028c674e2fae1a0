"""What can go wrong that is not a bug."""


class UserError(Exception):
    """A mistake that the person at the keyboard can mend: shown as one line, exit code 2."""


class InvariantError(RuntimeError):
    """A promise about tickets was broken while running; the run stops rather than publish a wrong number."""


class Interrupted(Exception):
    """Training was asked to stop and has saved where it was."""

"""What a run's files hold: the forms (see `ltx.files.fit`) of its JSON."""

from typing import Any

COUNTS = {str: int}

MANIFEST: dict[str, Any] = {
    "status": str,
    "reason": str,
    "command": str,
    "config": str,
    "model": str,
    "dataset": str,
    "method": str,
    "network": str,
    "weights": int,
    "seeds": [int],
    "fingerprint": str,
    "normalisation": {str: [float]},
    "examples": COUNTS,
    "engine": str,
    "device": str,
    "threads": int,
    "versions": {str: str},
    "checks": COUNTS,
    "seconds": float,
    "files": {str: str},
    "trained_by": [str],
    "kept": str,
}
"""manifest.json: what a run says of itself."""

STATUS: dict[str, Any] = {
    "state": str,
    "host": str,
    "pid": int,
    "level": (int, None),
    "role": str,
    "density": (float, None),
    "step": (int, None),
    "steps": (int, None),
    "val_accuracy": (float, None),
    "updated": float,
    "reason": str,
    "log": str,
}
"""status.json: where a run's training is."""

SWEEP: dict[str, Any] = {"launcher": str, "jobs": [{"overrides": [str], "folder": str}]}
"""sweep.json: the plan of a sweep."""

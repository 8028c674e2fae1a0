"""Many experiments: planned, launched through Hydra, and watched."""

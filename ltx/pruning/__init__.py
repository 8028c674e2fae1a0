"""Weights to scores to masks, channels cut for real, and tickets made worse on purpose."""

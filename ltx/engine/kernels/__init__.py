"""Products with the weights that survive pruning, compiled from C at installation where there is a compiler."""

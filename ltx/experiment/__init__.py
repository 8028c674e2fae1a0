"""An experiment being run: the loop, its folder, its tables, and what is told of it."""

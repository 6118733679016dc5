"""What `python -m models` does: for each command a function of its options, and one that declares them."""

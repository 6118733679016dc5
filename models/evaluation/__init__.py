"""How good a model is, with counts and intervals."""

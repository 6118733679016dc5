"""Training: recipes, the energy and classifier loops, checkpoints and diagnostics."""

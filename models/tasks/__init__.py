"""What else an energy does besides purifying: restoration, generation, composition, classes in turn, trajectories."""

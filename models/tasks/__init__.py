"""What else an energy does besides purifying: restoration."""

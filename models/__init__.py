"""What is learned: networks, sampler, chain banks, training, and the bundle that is served and attacked."""

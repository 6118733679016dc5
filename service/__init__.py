"""The HTTP service: decode an upload, admit it, run its Langevin chains, classify, respond."""

"""The HTTP service: decode an upload, admit it, run its Langevin chains, classify, respond."""

__version__ = "0.1.0"

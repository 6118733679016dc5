"""Bundles in other libraries' hands."""

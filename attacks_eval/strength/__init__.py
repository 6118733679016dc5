"""The search for the strongest defence: candidates, each attacked alike, in one table."""

"""Energy networks whose weights stand still: forward and input gradient, written out for speed."""

"""Pages to read in a browser, each one HTML file that needs nothing else: their parts, style and figures."""

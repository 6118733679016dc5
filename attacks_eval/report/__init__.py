"""The report of a robustness evaluation, and the comparison of two: HTML for a browser, Markdown for a terminal."""

"""The adversary: threat models, attacks, and reports that do not flatter. Attacks speak [0, 1]."""

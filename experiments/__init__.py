"""The paper's tables and figures, computed with this library: ``python -m experiments --quick``."""

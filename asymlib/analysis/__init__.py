"""What records say: which runs compare, statistics, the paper's claims, and the panels of figures. It reads records and
knows no engine."""

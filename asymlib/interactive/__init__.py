"""What a person can touch: the advantage-curve explorer, the run browser, and live training. It knows records, figures
and the lab."""

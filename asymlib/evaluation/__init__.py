"""The real problems: data, the grader, and sampling a checkpoint on the test sets. It knows records and statistics, and
no engine."""

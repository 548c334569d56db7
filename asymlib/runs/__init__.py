"""One run and its folder: the spec that defines it, the record that it leaves, and the matrix that lists many. It knows
methods and no engine."""

"""The flipped curves A~(p) = A(1 - p) with a linear end where A(1 - p) has none (Eq. 15-18)."""

import numpy as np

from .advantages import Table, beta_table, check_curve_arguments, check_group_size, group_accuracies, positive_advantage


def flipped_positive(p, group_size: int, beta: float = 0.5):
    """EntDecrease's positive curve (Eq. 17): A_pos(1-p) up to p = (G-1)/G, then linear to V_pos_end (Eq. 15) at p = 1.

    p: scalar or array in [0, 1]; group_size: G >= 3 (Eq. 15 extrapolates from two inner points). Returns float64 of p's shape.
    Raises ValueError for p outside [0, 1], beta < 0 or group_size < 3.
    """
    p = check_curve_arguments(p, beta=beta)
    check_group_size(group_size, 3, "a flipped curve needs")
    last = (group_size - 1) / group_size
    at_last = positive_advantage(1 - last, beta)
    step = at_last - positive_advantage(1 - (group_size - 2) / group_size, beta)
    end = at_last + step  # Eq. 15
    linear = end - step * group_size * (1 - p)
    return np.where(p <= last, positive_advantage(np.maximum(1 - p, 1 - last), beta), linear)[()]


def flipped_negative(p, group_size: int, beta: float = 0.5):
    """EntIncrease's negative curve (Eq. 18 with Eq. 16): the flipped positive one mirrored in both axes."""
    return -flipped_positive(1 - check_curve_arguments(p, beta=beta), group_size, beta)


def flipped_positive_table(group_size: int, beta_pos: float, beta_neg: float) -> Table:
    """EntDecrease: the positive curve flipped, the negative one kept."""
    _, neg = beta_table(group_size, beta_pos, beta_neg)
    return flipped_positive(group_accuracies(group_size), group_size, beta_pos), neg


def flipped_negative_table(group_size: int, beta_pos: float, beta_neg: float) -> Table:
    """EntIncrease: the negative curve flipped, the positive one kept."""
    pos, _ = beta_table(group_size, beta_pos, beta_neg)
    return pos, flipped_negative(group_accuracies(group_size), group_size, beta_neg)

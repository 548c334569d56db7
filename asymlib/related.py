"""Tables of published relatives (`related.yaml`) that are no curve of the paper, and what any table does on average.

Shapes as in `advantages`: a table is (pos, neg), float64 arrays of length G + 1, indexed by the number k of right rollouts.
"""

from math import comb

import numpy as np

from .advantages import Table, beta_table, check_group_size, group_accuracies

NEEDS = "a rollout that is compared with others needs"


def centred_table(group_size: int, power_p: float, power_q: float) -> Table:
    """(r - p) p^power_p (1-p)^power_q: the centred reward with a weight for the group; 0 in a group that agrees.

    (-1/2, -1/2) is GRPO, (0, 0) Dr.GRPO, (-1, 0) MaxRL (arXiv 2602.02710), (-1, -1) normalisation by the mean absolute
    deviation 2p(1-p) times 2 (arXiv 2601.20614 Eq. 9), (-1/2, gamma - 1/2) F-GRPO (arXiv 2602.06717 Eq. 13).
    """
    p = group_accuracies(group_size)
    weight = np.zeros(group_size + 1)
    weight[1:-1] = p[1:-1] ** power_p * (1 - p[1:-1]) ** power_q
    return (1 - p) * weight, -p * weight


def leave_one_out_table(group_size: int) -> Table:
    """RLOO (arXiv 2402.14740 Section 2.3): the reward minus the mean reward of the other G - 1 rollouts."""
    check_group_size(group_size, 2, NEEDS)
    right = np.arange(group_size + 1)
    return 1 - (right - 1) / (group_size - 1), -right / (group_size - 1)


def sample_std_table(group_size: int) -> Table:
    """GRPO with the divisor G - 1 in its standard deviation, as verl and TRL compute it (their epsilon left out)."""
    check_group_size(group_size, 2, NEEDS)
    pos, neg = beta_table(group_size, 0.5, 0.5)
    factor = np.sqrt((group_size - 1) / group_size)
    return pos * factor, neg * factor


def extra_right_table(group_size: int) -> Table:
    """NGRPO (arXiv 2509.18851): mean and sample standard deviation of the group and one virtual rollout that is right."""
    mean = np.arange(1, group_size + 2) / (group_size + 1)
    std = np.sqrt(mean * (1 - mean) * (group_size + 1) / group_size)
    std[-1] = np.inf  # all agree: advantage 0
    return (1 - mean) / std, -mean / std


def risk_seeking_table(group_size: int, risk: float) -> Table:
    """RS-GRPO (arXiv 2509.24261): (e^(risk r) / mean e^(risk r) - 1) / risk."""
    p = group_accuracies(group_size)
    mean = 1 - p + p * np.exp(risk)
    return (np.exp(risk) / mean - 1) / risk, (1 / mean - 1) / risk


def best_of_subset_table(group_size: int, k: int) -> Table:
    """PKPO (arXiv 2505.15201 Eq. 33) times G: what a rollout adds to the maximum reward of a random subset of k around it.

    Only a right rollout whose k - 1 companions are all wrong adds anything: G C(wrong, k-1) / C(G, k). The factor G makes the
    paper's sum over rollouts the mean that a policy loss takes. Raises ValueError for k > G.
    """
    if not 1 <= k <= group_size:
        raise ValueError(f"pass_k={k!r}: must lie in 1..group_size ({group_size})")
    wrong = range(group_size, -1, -1)
    pos = np.array([group_size * comb(n, k - 1) / comb(group_size, k) for n in wrong])
    return pos, np.zeros(group_size + 1)


def best_of_group_table(group_size: int) -> Table:
    """The best rollout gets its reward minus the second best's, every other one 0 (arXiv 2503.19595, verl's grpo_passk)."""
    check_group_size(group_size, 2, NEEDS)
    return (np.arange(group_size + 1) == 1).astype(float), np.zeros(group_size + 1)


def anchored_table(group_size: int, anchor: float) -> Table:
    """GRPO times e^(anchor - p) for a right, e^(p - anchor) for a wrong rollout (arXiv 2601.08521 Eq. 13-16, fixed anchor)."""
    p = group_accuracies(group_size)
    pos, neg = beta_table(group_size, 0.5, 0.5)
    return pos * np.exp(anchor - p), neg * np.exp(p - anchor)


def mean_advantages(table: Table, p):
    """The mean advantage of a right and of a wrong rollout on a prompt that the policy answers right with probability p.

    p: scalar or array. Returns two float64 of p's shape. Of a rollout's G - 1 companions j ~ Bin(G - 1, p) are right, so its
    group has k = j + 1 if it is right itself and k = j if not. The expected on-policy update of a prompt is the difference of
    the two times the gradient of p: the slope F'(p) of the surrogate reward that the table maximises (our derivation; the
    view is that of arXiv 2510.23049).
    """
    (pos, neg), p = table, np.asarray(p, dtype=np.float64)[..., None]
    j = np.arange(len(pos) - 1)
    share = np.array([comb(j[-1], int(n)) for n in j]) * p**j * (1 - p) ** j[::-1]
    return share @ pos[1:], share @ neg[:-1]

"""What a rehearsal of asymgrpo on four GPUs might have measured, in round numbers."""

MEASURED = {
    "seconds": {
        "start-up": 360.0, "step": 40.0, "rollout": 10.0, "update": 20.0, "increment": 4.0, "checkpoint": 6.0,
        "validation": 3.0, "evaluation": 30.0, "notebook": 200.0, "SIGTERM": 9.0,
    },
    "tokens": 256_000, "response_length": 1000.0, "reward_at_start": 0.4, "rollout_log_prob_gap": 0.2,
    "rollout_log_prob_gap_mean": 0.01, "policy_gigabytes": 61.0,
    "memory_gigabytes": {"host": 90.0, "card": 72.0}, "checkpoint_gigabytes": 64.0, "kept_gigabytes": 8.0,
    "sample_gigabytes": 0.001, "gpus": 4, "stand_in": None,
}  # fmt: skip

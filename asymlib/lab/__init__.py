"""The embedded engine: a real RLVR problem that a laptop trains in a minute (task, policy, sampler, loss, warm-up, trainer)."""

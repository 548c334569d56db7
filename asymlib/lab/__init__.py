"""The embedded engine: a real RLVR problem that a laptop trains in a minute (task, policy, sampler, loss, warm-up,
trainer, export). It knows methods and records, and no other engine."""

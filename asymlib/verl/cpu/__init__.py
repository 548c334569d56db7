"""verl without an accelerator: its settings, a platform and a rollout by transformers. For tests and tiny policies; on
GPUs nothing imports it."""

"""Running: one spec on its engine, and many through papermill. It knows both engines."""

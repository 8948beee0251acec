"""Engines: what places a run's host hubs on machines. One small interface (`base`), an implementation per module."""

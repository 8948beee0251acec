"""One processing element: the GIC CPU interface, timers, and the context that runs on it."""

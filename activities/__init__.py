"""Side effects of the workflows; dependencies are injected where the worker is wired."""

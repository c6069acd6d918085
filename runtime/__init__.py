"""Plumbing that every process shares: settings, the Temporal connection, logs."""

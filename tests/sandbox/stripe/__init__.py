"""Saved cards at the sandbox's Stripe."""

"""Pure rules of billing: no clock, no randomness, no network, no database.

Everything here can be imported by workflow code and by every process.
"""

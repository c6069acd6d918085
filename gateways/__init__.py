"""The gateways behind one port; see `gateways.gateway` for the contract."""

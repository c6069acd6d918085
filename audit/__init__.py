"""The checker: what the gateways, PostgreSQL and Temporal say, held against our promises."""

"""The Distributor."""

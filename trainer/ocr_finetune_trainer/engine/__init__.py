"""The engine that runs a plan on this machine, without a cluster."""

"""The stages of a run, one module each, and the runner that gives them their common contract."""

# The whole cluster. Included by the Makefile.
.PHONY: e2e
e2e: .venv/dev ## Tests on a whole Kubernetes cluster of this machine (Linux, root)
	@E2E=1 $(BIN)/python -m pytest tests/cluster

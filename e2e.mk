# The whole cluster. Included by the Makefile.
.PHONY: e2e
e2e: .venv/dev ## Tests on a whole Kubernetes cluster of this machine (Linux, root); E2E_ARGUMENTS goes to pytest
	@E2E=1 $(BIN)/python -m pytest tests/cluster $(E2E_ARGUMENTS)

.PHONY: e2e-standing
e2e-standing: .venv/dev ## Keeps a cluster and runs the tests that each line of the input names
	@E2E=1 PYTHONPATH=tests:tests/cluster:tests/controlplane $(BIN)/python -m standing

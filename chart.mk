# The chart's generated files. Included by the Makefile.
CHART := charts/ocr-finetune-operator

generate: generate-chart

.PHONY: generate-chart
generate-chart: .venv/dev
	@$(BIN)/python -m ocr_finetune_api.crd > $(CHART)/files/crd.yaml
	@$(BIN)/python charts/generate_readme.py
	@$(BIN)/python charts/generate_schema.py
	@$(BIN)/python charts/generate_dashboards.py

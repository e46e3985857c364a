# make demo: classify the example scene; make test: run the tests. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-qgis test-qgis-ltr plugin translations dist docs lint model left-out clean

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/.dev
	mkdir -p demo
	$(BIN)/python examples/make_demo_scene.py demo/scene.tif
	$(BIN)/rssc-geo classify demo/scene.tif -o demo/landuse.gpkg --preview demo/preview.png --overwrite
	@echo "map:     $(CURDIR)/demo/landuse.gpkg"
	@echo "picture: $(CURDIR)/demo/preview.png"

# The tests of two files at once, with one thread each (two would wait for those of the other, twice as long); those of one file
# share what they made.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadfile

# Needs a QGIS and what qgis_plugin/README.md names; runs under QGIS's own Python.
test-qgis: $(VENV)/.dev
	OMP_WAIT_POLICY=PASSIVE tests/qgis/run

# The same in QGIS 3.40, in a Debian 13 folder; as root.
test-qgis-ltr: $(VENV)/.dev
	OMP_WAIT_POLICY=PASSIVE tests/qgis/run-ltr

plugin: $(VENV)/.dev
	$(BIN)/python qgis_plugin/build_zip.py

# The plugin's texts for translators, into build; needs pylupdate5 (Debian: pyqt5-dev-tools).
translations:
	mkdir -p build
	$(PYTHON) qgis_plugin/build_zip.py --texts build/option_texts.py
	pylupdate5 $$(find qgis_plugin/rssc_geo_qgis -name '*.py' | sort) build/option_texts.py -ts build/rssc_geo.ts 2>/dev/null
	@echo "template: $(CURDIR)/build/rssc_geo.ts"

# What is published: wheel, sdist and the plugin's zip, into dist/, checked.
dist: $(VENV)/.dev
	rm -rf dist build/lib build/bdist.*
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*.whl dist/*.tar.gz
	$(BIN)/python qgis_plugin/build_zip.py

# The documentation site, into build/site; a warning is an error.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site: $(CURDIR)/build/site/index.html"

# The rest of the pre-commit hooks needs a git checkout.
IN_GIT := git rev-parse --git-dir >/dev/null 2>&1
lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	# Whether the benchmarks still call what there is; other checks of types are for the packages.
	MYPYPATH=cli:benchmarks $(BIN)/mypy benchmarks examples \
	  --disable-error-code arg-type --disable-error-code func-returns-value \
	  --disable-error-code import-not-found --disable-error-code import-untyped \
	  --disable-error-code misc --disable-error-code no-any-return \
	  --disable-error-code var-annotated --no-warn-unused-ignores
	$(BIN)/lint-imports --no-logo
	# What the plugin repository scans an upload with.
	$(BIN)/python qgis_plugin/build_zip.py build/scanned.zip
	$(BIN)/python qgis_plugin/scan_zip.py build/scanned.zip
	$(IN_GIT) && PATH="$(CURDIR)/$(BIN):$$PATH" SKIP=ruff,ruff-format,mypy,import-linter \
	  $(BIN)/pre-commit run --all-files || ! $(IN_GIT)

# The embedded model anew, from the data sets of its card (DATA), in stages that go on after a stop.
DATA ?= ../shared/data
WEIGHTS ?= ../shared/weights/mobilenetv1_100_imagenet.safetensors
model: $(VENV)/.dev
	$(BIN)/python benchmarks/embedded_model.py $(DATA) -o build/compact

# How right an encoder is on each data set that it did not learn from: the table of docs/benchmarks.md.
# Trainings start from compact 0.3.0, the last embedded model that knew AID alone.
left-out: $(VENV)/.dev
	mkdir -p build/aid
	git archive ecb029d rssc_geo/models/bundles/compact | tar -x -C build/aid
	$(BIN)/python benchmarks/left_out.py $(DATA) --start build/aid/rssc_geo/models/bundles/compact \
	  --weights $(WEIGHTS)

clean:
	rm -rf $(VENV) demo build dist

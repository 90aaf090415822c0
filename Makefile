# To get started: `make demo`, `make demo-seg`, `make demo-cls`, `make test`, `make docs`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
REQUIREMENTS ?= requirements.txt
export DEMO_ROOT ?= data/demo
DEMO := configs/demo_faster_rcnn_r18_manpp.py
DEMO_SEG := configs/demo_deeplabv3_r18_manpp.py
DEMO_CLS := configs/demo_resnet14_manpp.py

.PHONY: install demo demo-seg demo-cls test test-slow docs test-onedl gpu lint format clean

install: $(VENV)/installed

$(VENV)/installed: $(REQUIREMENTS) requirements/test.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r $(REQUIREMENTS)
	$(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation -e '.[test]'
	touch $@

$(DEMO_ROOT)/mosaics/val_cross.png: | install
	$(BIN)/python tools/make_demo_data.py $(DEMO_ROOT)

# Train a small Faster R-CNN block by block on drawn scenes, evaluate it and paint its detections.
demo: install $(DEMO_ROOT)/mosaics/val_cross.png
	$(BIN)/python tools/train.py $(DEMO) --work-dir work_dirs/demo
	$(BIN)/python tools/test.py $(DEMO) $$(cat work_dirs/demo/last_checkpoint) \
		--work-dir work_dirs/demo/test --show-dir work_dirs/demo/painted

# The same for a small DeepLabV3.
demo-seg: install $(DEMO_ROOT)/mosaics/val_cross.png
	$(BIN)/python tools/train.py $(DEMO_SEG) --work-dir work_dirs/demo-seg
	$(BIN)/python tools/test.py $(DEMO_SEG) $$(cat work_dirs/demo-seg/last_checkpoint) \
		--work-dir work_dirs/demo-seg/test --show-dir work_dirs/demo-seg/painted

# The same for a small ResNet, on images of one shape each.
demo-cls: install $(DEMO_ROOT)/mosaics/val_cross.png
	$(BIN)/python tools/train.py $(DEMO_CLS) --work-dir work_dirs/demo-cls
	$(BIN)/python tools/test.py $(DEMO_CLS) $$(cat work_dirs/demo-cls/last_checkpoint) \
		--work-dir work_dirs/demo-cls/test --show-dir work_dirs/demo-cls/painted

# Test files run in parallel with one thread each; a second thread per test would gain less.
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: install
	$(PYTEST) -m 'not slow'

# Killed and resumed runs, several processes, wheels, full configs, every documented command.
test-slow: install
	$(PYTEST) -m slow

# The site, in docs/_build/html; a warning is an error.
docs: $(VENV)/docs
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

$(VENV)/docs: requirements/docs.txt | install
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements/docs.txt
	touch $@

# The test suite on the maintained fork of MMLab's packages, in a separate environment.
test-onedl:
	$(MAKE) test test-slow VENV=.venv-onedl REQUIREMENTS=requirements/onedl.txt

# Needs a GPU: runs the tests that need one, then measures five configs and writes to work_dirs/gpu.
gpu: install
	$(BIN)/python tools/gpu_check.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy manpp_mm tools

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-onedl data/demo work_dirs build dist docs/_build *.egg-info

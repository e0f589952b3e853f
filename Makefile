# Two commands: `make demo` and `make test`. Everything lives in .venv; nothing else is touched.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
LLAMA := $(shell grep -o 'llama-cpp-python==[0-9.]*' pyproject.toml | head -1)
NATIVE := CMakeLists.txt pyproject.toml $(wildcard csrc/*)

.PHONY: demo test check bench bench-full results install models training clean

install: $(VENV)/.installed

# The library is compiled once: it is installed first, and the extension is then built against that
# copy instead of one more in an isolated environment.
$(VENV)/.library: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --progress-bar off $(LLAMA) "scikit-build-core>=0.11" "pybind11>=2.13"
	touch $@

$(VENV)/.installed: $(VENV)/.library $(NATIVE)
	$(PIP) install --progress-bar off --no-build-isolation -e ".[test]"
	touch $@

$(VENV)/.checked: $(VENV)/.installed
	$(PIP) install --progress-bar off --no-build-isolation -e ".[test,check,bench,documents,eval]"
	touch $@

# The tests of training run where this was made before them; torch alone is larger than all the rest.
training: $(VENV)/.checked
	$(PIP) install --progress-bar off torch==2.13.0 "transformers>=4.56" "peft>=0.15" "safetensors>=0.4"

models: install
	$(BIN)/specrag pull

demo: models
	$(BIN)/specrag index docs README.md --index .specrag-demo
	$(BIN)/specrag ask "What does the verifier read?" --index .specrag-demo --show-drafts

test: models $(VENV)/.checked
	$(BIN)/python -m pytest

check: $(VENV)/.checked
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror csrc/*.h csrc/*.cpp tests/native/*.cpp
	$(BIN)/python tests/check_stub.py
	$(BIN)/cmake -S . -B build/check -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	    -DSPECRAG_WERROR=ON -DSPECRAG_NATIVE_TESTS=ON -DPython_EXECUTABLE=$(abspath $(BIN))/python
	$(BIN)/cmake --build build/check
	build/check/native_tests
	$(BIN)/cmake -S . -B build/werror -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	    -DSPECRAG_WERROR=ON -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	    -Dpybind11_DIR=$$($(BIN)/python -m pybind11 --cmakedir)
	$(BIN)/cmake --build build/werror

bench: models $(VENV)/.checked
	$(BIN)/python -m pytest benchmarks --benchmark-only -m "not full"

bench-full: models $(VENV)/.checked
	$(BIN)/python -m pytest benchmarks --benchmark-only

clean:
	rm -rf build .specrag-demo

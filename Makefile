# Every target makes what it needs: `make serve` and `make test` work on a machine that has only Python 3.11 and npm.
PYTHON ?= python3
# For instance PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" on Linux, to avoid the CUDA build.
PIP_ARGS ?=
# What runs ONNX: cpu, or gpu on a machine with CUDA.
RUNTIME ?= cpu
BUNDLE ?= models/zoo/cifar10-robust
SERVE_ARGS ?=
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS)
RUN = .venv/bin/python -m

.PHONY: serve test browser test-ray lint docs train-default train-digits bench clean

serve: .venv/serve.done
	$(RUN) service --bundle $(BUNDLE) $(SERVE_ARGS)

# A file of tests to a process. One thread each: the tests' networks are tiny, and threads that wait for each other starve
# a busy machine.
test: .venv/dev.done browser
	OMP_NUM_THREADS=1 $(RUN) pytest --numprocesses logical --maxprocesses 4 --dist loadfile

# The console's tests drive Debian's Chromium; root gets it, and who cannot have it is told that these tests are skipped.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
		|| echo "chromium is missing and could not be installed: the console's tests will be skipped"

# Apart from `test`: 360 MB more, and a cluster takes longer to start than most tests together.
test-ray: .venv/ray.done
	OMP_NUM_THREADS=1 .venv/ray/bin/python -m pytest tests/service/test_ray_app.py tests/service/test_batch_ray.py \
		tests/attacks_eval/test_ray.py

lint: .venv/dev.done
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

# Into site/, which any web server can serve: `python -m http.server -d site`.
docs: .venv/dev.done
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

# Finished parts are recognised and interrupted ones resumed, so it may be stopped and started at will.
train-default: .venv/dev.done
	$(RUN) models train cifar10_classifier --resume
	$(RUN) models train cifar10_midrun_light --resume
	$(RUN) models export runs/cifar10_midrun_light/checkpoint.pt --classifier runs/cifar10_classifier/checkpoint.pt \
		--presets models/recipes/cifar10_presets.toml --out models/zoo/cifar10-midrun

train-digits: .venv/dev.done
	$(RUN) models train digits_classifier --resume
	$(RUN) models train digits_midrun --resume
	$(RUN) models export runs/digits_midrun/checkpoint.pt --classifier runs/digits_classifier/checkpoint.pt \
		--presets models/recipes/digits_presets.toml --out models/zoo/digits-midrun

bench: .venv/litserve.done
	$(RUN) tests.benchmarks

clean:
	rm -rf .venv build site *.egg-info

.venv/bin/python:
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/serve.done: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable ".[$(RUNTIME),client]"
	touch $@

# torchattacks pins a requests of 2020 and torchvision, and its attacks import neither: install it without them.
.venv/dev.done: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) --editable ".[$(RUNTIME),client,train,eval,fidelity,hub,trajectories,adapters,docs,dev]"
	$(PIP) --no-deps torchattacks==3.5.1
	touch $@ .venv/serve.done

# Ray, too, has a venv on top of .venv, for the same reason as what Limpid is compared with.
.venv/ray.done: .venv/dev.done Makefile
	.venv/bin/python -m venv .venv/ray
	.venv/bin/python -c "import site; print(*site.getsitepackages())" > \
		"$$(.venv/ray/bin/python -c 'import site; print(*site.getsitepackages())')/limpid.pth"
	.venv/ray/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) \
		"ray[serve,data]"
	touch $@

# What Limpid is compared with has a venv on top of .venv: it brings uvloop, which uvicorn would choose for
# Limpid too.
.venv/litserve.done: .venv/dev.done Makefile
	.venv/bin/python -m venv .venv/litserve
	.venv/bin/python -c "import site; print(*site.getsitepackages())" > \
		"$$(.venv/litserve/bin/python -c 'import site; print(*site.getsitepackages())')/limpid.pth"
	.venv/litserve/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS) \
		litserve==0.2.19 torchebm==0.8.9
	touch $@

# Builds a Python guest. Sourced by scripts/build-guest, whose `--help` says how.

need_python() {
  local advice="install Python 3.11 or newer with venv (on Debian: python3 and python3-venv), then try again"
  command -v python3 >/dev/null || die "cannot find python3, which Python guests are built with" "$advice"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "this is $(python3 --version), too old to build Python guests" "$advice"
  python3 -c 'import venv, ensurepip' 2>/dev/null || die "this Python has no venv" "$advice"
}

# Sets `environment` to a virtual environment with what requirements.txt says, made once for all
# guests that have the same.
install_requirements() {
  local requirements
  requirements=$(cat "$guest/requirements.txt" <(python3 --version; uname -sm) | digest)
  environment=$toolchain/python-${requirements:0:16}
  mkdir -p "$toolchain"
  hold "$environment.lock" "another installation of the same tools"
  # A virtual environment can't be moved, so it is made in place and marked when it is whole.
  [ ! -f "$environment/complete" ] || return 0
  say "installing the tools of $(basename "$guest") (about 160 MB, once)"
  rm -rf "$environment"
  python3 -m venv "$environment" >&2 || die "cannot make a virtual environment in $environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps \
    --only-binary :all: --require-hashes --requirement "$guest/requirements.txt" >&2 ||
    die "cannot install the packages that $guest/requirements.txt names" \
      "pip must reach its index, or have them in its cache"
  touch "$environment/complete"
}

# What requirements.txt has of mypy and ruff has its say.
check_python() {
  local tools=$environment/bin
  [ ! -x "$tools/mypy" ] || "$tools/mypy" --cache-dir "$1/mypy" --no-error-summary >&2 ||
    die "the types of $guest are wrong"
  [ ! -x "$tools/ruff" ] || "$tools/ruff" check --cache-dir "$1/ruff" --quiet >&2 ||
    die "the source of $guest is not clean"
  [ ! -x "$tools/ruff" ] || "$tools/ruff" format --cache-dir "$1/ruff" --quiet --check >&2 ||
    die "the source of $guest is not formatted" "run '$tools/ruff format' in that folder"
}

build_python() {
  need_python
  install_requirements
  say "building $(basename "$guest") (about 30 seconds)"
  # Otherwise searched for the guest's own packages.
  unset VIRTUAL_ENV PYTHONPATH
  local componentize=("$environment/bin/componentize-py" --quiet --wit-path "$wit" --world extension)
  cd "$guest"
  rm -rf types
  "${componentize[@]}" bindings types >&2 || die "cannot make the bindings of $wit"
  check_python "$1"
  "${componentize[@]}" componentize app --python-path src --output "$1/main.wasm" >&2 || die "cannot build $guest"
}

build_once python

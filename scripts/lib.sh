# What the scripts share. Sourced, not run.

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$(printf '\033[1m') plain=$(printf '\033[0m')
else
  bold= plain=
fi

step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The path as seen from anywhere. usage: absolute PATH
absolute() {
  case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s/%s\n' "$PWD" "$1" ;;
  esac
}

# Fails unless every named program is there.
need() {
  local program
  for program; do
    command -v "$program" >/dev/null || fail "'$program' is needed and was not found; install it and run this again"
  done
}

# Installs a cargo subcommand unless it is there. usage: need_cargo_tool NAME VERSION
need_cargo_tool() {
  cargo "${1#cargo-}" --version >/dev/null 2>&1 && return
  step "Installing $1 $2"
  # Outside the project's own target folder, whose artefacts it must not mix with.
  env -u CARGO_TARGET_DIR cargo install --locked "$1@$2"
}

# Installs a PostgreSQL server unless there is one, or DATABASE_URL names one.
need_postgres() {
  if [ -n "${DATABASE_URL:-}" ] || command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    return
  fi
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "PostgreSQL 15 or newer is needed: install it (on Debian 'postgresql'), or set DATABASE_URL to a server whose databases may come and go"
  fi
  step "Installing PostgreSQL"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends postgresql
}

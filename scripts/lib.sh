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

# Installs what the tests of PostgreSQL start: a server, a pooler, and a clock that is wrong.
need_postgres() {
  local missing=()
  if ! command -v initdb >/dev/null && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    missing+=(postgresql)
  fi
  PATH=$PATH:/usr/sbin command -v pgbouncer >/dev/null || missing+=(pgbouncer)
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || missing+=(libfaketime)
  [ ${#missing[@]} != 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "PostgreSQL 15 or newer, PgBouncer and libfaketime are needed; install what is missing: ${missing[*]}"
  fi
  step "Installing ${missing[*]}"
  apt-get update -qq
  without_services env DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "${missing[@]}"
}

# Runs a command that installs packages, whose services are not started. usage: without_services COMMAND...
without_services() {
  local policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ]; then
    "$@"
    return
  fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  local status=0
  "$@" || status=$?
  rm -f "$policy"
  return $status
}

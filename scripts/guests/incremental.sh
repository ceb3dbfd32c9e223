# Builds a guest once for each state of its sources. Sourced by scripts/build-guest.

# The WIT files that the guest is built against.
wit=$repo/wit
[ ! -d "$guest/wit" ] || wit=$guest/wit
readonly wit

# Sets `component`, built again only where the guest, the WIT files or these scripts have changed.
# usage: build_once LANGUAGE, where `build_LANGUAGE FOLDER` puts main.wasm into the folder
build_once() {
  local language=$1
  local folder=$guests/$language/$(basename "$guest")
  mkdir -p "$folder"
  hold "$folder/lock" "another build of $(basename "$guest")"
  local now
  now=$(inputs_digest "$language")
  component=$folder/main.wasm
  if [ -f "$component" ] && [ "$(cat "$folder/inputs.digest" 2>/dev/null)" = "$now" ]; then
    say "$(basename "$guest") is up to date"
    return
  fi
  # Whatever ends the build half-way must not leave a component that looks finished.
  rm -f "$folder/inputs.digest"
  "build_$language" "$folder"
  [ -f "$component" ] || die "$guest builds no component"
  printf '%s\n' "$now" >"$folder/inputs.digest"
  say "built $(basename "$guest"), $(wc -c <"$component") bytes"
}

# The sha256 of everything that the component is made of: all files of the guest but texts, what is
# packed beside the component and what tools have put there; the WIT files; and what builds it.
inputs_digest() {
  {
    cd "$guest"
    find . \( -path ./node_modules -o -path ./types -o -path ./build -o -path ./bundle -o -path ./wit \
      -o -name '.?*' -o -name __pycache__ -o -name '*.md' \) -prune -o -type f -print | in_order
    cd "$wit"
    find . -type f | in_order
    cd "$repo"
    in_order < <(printf '%s\n' scripts/build-guest scripts/guests/{incremental,"$1"}.sh)
  } | digest
}

# The sha256 of each file that is named, in an order that is the same everywhere.
in_order() {
  LC_ALL=C sort | while IFS= read -r file; do sha256 "$file"; done
}

# Waits until nobody else holds the lock, and holds it to the end of this shell or subshell.
# usage: hold FILE WHAT_IS_WAITED_FOR
hold() {
  command -v flock >/dev/null || return 0
  exec {lock}>"$1"
  flock --nonblock "$lock" || { say "waiting for $2"; flock "$lock"; }
}

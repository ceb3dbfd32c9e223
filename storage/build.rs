//! Makes cargo notice a migration that was added; the ones already there are noticed anyway.

fn main() {
    println!("cargo::rerun-if-changed=../migrations/storage");
}

//! Link options of the component.

use std::env;

/// One page (64 KiB) instead of Rust's default of sixteen. The code doesn't recurse, and every page
/// is one more that the host sets up for each request. Running over the end of it is a trap.
const STACK_BYTES: u32 = 64 * 1024;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_FAMILY").as_deref() == Ok("wasm") {
        println!("cargo::rustc-link-arg-cdylib=-zstack-size={STACK_BYTES}");
    }
    // Comparing texts compiles to `memcmp`. Without the standard library nobody else links it.
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("wasi") {
        println!("cargo::rustc-link-arg-cdylib=-lc");
    }
}

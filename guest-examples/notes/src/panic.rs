//! What a panic does: it traps. The host answers 502 and logs where it happened.

#![cfg(target_family = "wasm")]

use core::panic::PanicInfo;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}

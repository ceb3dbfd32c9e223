//! Guests that are hard to compile.

use crate::{nested_loops, straight_line};

/// Answers 200, and has a function that takes long to compile and much memory, both far more than its
/// bytes, which grow with `size`: each of so many nested loops may change each of as many variables, so
/// the compiler has to keep track of every variable anew in every loop.
pub fn compile_bomb(size: usize) -> Vec<u8> {
    let changes = (0..size)
        .map(|local| format!("(local.set {local} (i32.add (local.get {local}) (i32.const 1)))"));
    nested_loops(
        "i32 ".repeat(size),
        "loop ".repeat(size),
        changes.collect::<String>(),
        "local.get 0 br_if 0 end ".repeat(size),
    )
}

/// Answers 200, and has a function of so many steps. Time and memory to compile it grow with them.
pub fn long_function(steps: usize) -> Vec<u8> {
    straight_line("local.get 0 local.get 1 i32.mul i32.const 1 i32.add local.set 0 ".repeat(steps))
}

//! Settings of the engine that runs extensions.

use std::num::NonZeroU32;
use std::time::Duration;

use super::kind::{Optional, bytes, count, count_from_one, mebibytes, millis};
use super::setting::section;

section! {
    /// What one invocation may use, and all of them together. A request may ask for less.
    pub struct EngineConfig {
        /// How long an invocation may take.
        timeout: Duration = Duration::from_secs(10), "engine.timeout_ms": millis(1..=600_000);
        /// The linear memory of an invocation.
        memory_bytes: u64 = 128 << 20, "engine.memory_mb": mebibytes(1..=4_096);
        /// How many invocations the process runs at once.
        max_instances: u32 = 256, "engine.max_instances": count(1..=10_000);
        /// The fuel of an invocation, about one unit an instruction. Not set, none is counted,
        /// which is faster.
        fuel: Option<u64> = None, "engine.fuel": Optional(count(1..=i64::MAX.unsigned_abs()));
        /// How many host calls an invocation may make, those of WASI included.
        host_calls: u64 = 50_000, "engine.host_calls": count(1..=i64::MAX.unsigned_abs());
        /// How many lines an invocation may log; more are dropped and counted.
        log_lines: u32 = 256, "engine.log_lines": count(0..=100_000);
        /// How many bytes the lines of an invocation may have together.
        log_bytes: u64 = 64 << 10, "engine.log_bytes": bytes(0..=16 << 20);
        /// How many bytes a line may have; the rest of it is cut off.
        log_line_bytes: u64 = 8 << 10, "engine.log_line_bytes": bytes(16..=1 << 20);
        /// The most bytes of the body that an invocation answers with.
        response_bytes: u64 = 10 << 20, "engine.response_bytes": bytes(1..=256 << 20);
        /// The memory for compiled components that are kept ready.
        components_bytes: u64 = 512 << 20, "engine.components_mb": mebibytes(1..=65_536);
        /// The disk space for compiled components; what was used least recently goes first.
        code_cache_bytes: u64 = 4_096 << 20, "engine.code_cache_mb": mebibytes(1..=1_048_576);
        /// How long compiling a component may take.
        compile_timeout: Duration = Duration::from_secs(120), "engine.compile_timeout_ms": millis(1..=3_600_000);
        /// The memory that compiling a component may take.
        compile_memory_bytes: u64 = 2_048 << 20, "engine.compile_memory_mb": mebibytes(128..=65_536);
        /// How many components are compiled at once, each in a process of its own. Not set, half as
        /// many as there are processors.
        compile_at_once: Option<NonZeroU32> = None, "engine.compile_at_once": Optional(count_from_one(256));
    }
}

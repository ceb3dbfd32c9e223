//! What an instance may allocate.

use wasmtime::ResourceLimiter;

/// Elements of all tables of an invocation together.
const TABLE_ELEMENTS: usize = 1 << 17;

/// Bounds the memory and tables of one invocation, over all memories and tables it has.
#[derive(Debug)]
pub(super) struct Limiter {
    memory_bytes: usize,
    memory_used: usize,
    table_used: usize,
    refused_memory: bool,
}

impl Limiter {
    pub(super) const fn new(memory_bytes: usize) -> Self {
        Self {
            memory_bytes,
            memory_used: 0,
            table_used: 0,
            refused_memory: false,
        }
    }

    /// Whether the guest asked for more memory than it may have.
    pub(super) const fn refused_memory(&self) -> bool {
        self.refused_memory
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self
            .memory_used
            .saturating_add(desired.saturating_sub(current));
        let allowed = used <= self.memory_bytes;
        if allowed {
            self.memory_used = used;
        } else {
            self.refused_memory = true;
        }
        Ok(allowed)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // The pool's slots end where the limit does, so this is the same refusal from below.
        self.refused_memory = true;
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let used = self
            .table_used
            .saturating_add(desired.saturating_sub(current));
        let allowed = used <= TABLE_ELEMENTS;
        if allowed {
            self.table_used = used;
        }
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        super::CORE_INSTANCES as usize
    }

    fn tables(&self) -> usize {
        super::TABLES as usize
    }

    fn memories(&self) -> usize {
        super::MEMORIES as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_of_an_invocation_share_the_limit() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert!(!limiter.refused_memory());
        assert!(!limiter.memory_growing(40, 41, None).unwrap());
        assert!(limiter.refused_memory());
        assert!(limiter.memory_growing(40, 40, None).unwrap());
    }
}

//! What an instance may allocate.

use wasmtime::ResourceLimiter;

/// Elements of all tables of an invocation together.
const TABLE_ELEMENTS: usize = 1 << 17;

/// Bounds the memory and tables of one invocation, over all memories and tables it has.
#[derive(Debug)]
pub(super) struct Limiter {
    memory: Budget,
    tables: Budget,
}

/// Counts the host calls of one invocation, those of WASI included.
#[derive(Debug)]
pub(super) struct HostCalls {
    limit: u64,
    made: u64,
}

/// An invocation made more host calls than it may.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("more than {limit} host calls")]
pub(super) struct TooManyHostCalls {
    pub(super) limit: u64,
}

impl HostCalls {
    pub(super) const fn limited_to(limit: u64) -> Self {
        Self { limit, made: 0 }
    }

    /// One more is made. Tells whether it is the first one too many.
    pub(super) const fn make(&mut self) -> bool {
        self.made = self.made.saturating_add(1);
        self.made == self.limit.saturating_add(1)
    }

    /// Fails where there were too many.
    pub(super) const fn check(&self) -> Result<(), TooManyHostCalls> {
        if self.made > self.limit {
            return Err(TooManyHostCalls { limit: self.limit });
        }
        Ok(())
    }

    pub(super) const fn made(&self) -> u64 {
        self.made
    }
}

/// What may be used of something, and what is.
#[derive(Debug)]
struct Budget {
    limit: usize,
    used: usize,
    /// Where a slot of the pool ends.
    slot: usize,
    /// What the last growth took, to be given back when it fails after all.
    taken: usize,
    refused: bool,
}

impl Budget {
    const fn of(limit: usize, slot: usize) -> Self {
        Self {
            limit,
            slot,
            used: 0,
            taken: 0,
            refused: false,
        }
    }

    /// Whether it may grow; `maximum` is what the guest itself declared.
    fn grow(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> bool {
        self.taken = 0;
        // Wasmtime gives the end of the pool's slot as the maximum of a guest that declared none.
        let declared = maximum.filter(|maximum| *maximum < self.slot);
        if declared.is_some_and(|declared| desired > declared) {
            // The guest's own bound, which it may well count on.
            return false;
        }
        let growth = desired.saturating_sub(current);
        let used = self.used.saturating_add(growth);
        if used > self.limit {
            self.refused = true;
            return false;
        }
        (self.used, self.taken) = (used, growth);
        true
    }

    /// The growth that was allowed failed below, where the pool ends or the machine is out of memory.
    fn give_back(&mut self) {
        self.used = self.used.saturating_sub(std::mem::take(&mut self.taken));
        self.refused = true;
    }
}

impl Limiter {
    pub(super) const fn new(memory_bytes: usize) -> Self {
        Self {
            memory: Budget::of(memory_bytes, memory_bytes),
            tables: Budget::of(TABLE_ELEMENTS, super::TABLE_ELEMENTS),
        }
    }

    /// Bytes of all memories together; they never shrink.
    pub(super) const fn memory_bytes(&self) -> usize {
        self.memory.used
    }

    /// Whether the guest asked for more than it may have.
    pub(super) const fn refused_growth(&self) -> bool {
        self.memory.refused || self.tables.refused
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.memory.grow(current, desired, maximum))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory.give_back();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.tables.grow(current, desired, maximum))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.tables.give_back();
        Ok(())
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
        assert!(!limiter.refused_growth());
        assert!(!limiter.memory_growing(40, 41, None).unwrap());
        assert!(limiter.refused_growth());
        assert!(limiter.memory_growing(40, 40, None).unwrap());
        assert_eq!(limiter.memory_bytes(), 100);
    }

    #[test]
    fn the_first_host_call_too_many_is_told_once() {
        let mut calls = HostCalls::limited_to(2);
        for _ in 0..2 {
            assert!(!calls.make());
            calls.check().unwrap();
        }
        assert!(calls.make());
        assert!(!calls.make());
        let refused = calls.check().unwrap_err();
        assert_eq!(refused.to_string(), "more than 2 host calls");
        assert_eq!(calls.made(), 4);
    }

    #[test]
    fn the_guests_own_maximum_is_no_refusal_of_ours() {
        let mut limiter = Limiter::new(100);
        assert!(!limiter.memory_growing(10, 60, Some(50)).unwrap());
        assert!(!limiter.refused_growth());
    }

    #[test]
    fn what_failed_below_is_given_back() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.memory_growing(0, 90, None).unwrap());
        limiter
            .memory_grow_failed(wasmtime::Error::msg("no memory"))
            .unwrap();
        assert!(limiter.refused_growth());
        assert!(limiter.memory_growing(0, 100, None).unwrap());
    }
}

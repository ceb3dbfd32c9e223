//! Saying once what happens again and again.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Tells whether what happens is to be said, by kind: the first time, and again when a while has
/// passed since. Who fails in a loop must not fill the log.
#[derive(Debug)]
pub struct Silences<K>(Mutex<HashMap<K, Silence>>);

#[derive(Debug, Clone, Copy)]
struct Silence {
    until: Instant,
    unsaid: u64,
}

impl<K> Default for Silences<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Silences<K> {
    /// After something was said, the same is only counted for so long.
    pub const LENGTH: Duration = Duration::from_secs(10);
    /// Kinds that are remembered.
    const MOST_KINDS: usize = 4_096;

    /// How many of this kind went unsaid since the last one that was said, which may be long ago; none where
    /// this one is to go unsaid too.
    pub fn unsaid(&self, kind: K, now: Instant) -> Option<u64> {
        // Poisoning would need a panic below, which moves plain values only.
        let mut silences = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(silence) = silences.get_mut(&kind)
            && now < silence.until
        {
            silence.unsaid += 1;
            return None;
        }
        if silences.len() >= Self::MOST_KINDS {
            silences.retain(|_, silence| now < silence.until);
        }
        if silences.len() >= Self::MOST_KINDS {
            silences.clear();
        }
        let until = now + Self::LENGTH;
        let former = silences.insert(kind, Silence { until, unsaid: 0 });
        Some(former.map_or(0, |silence| silence.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_said_once_and_the_next_time_with_what_went_unsaid() {
        let silences = Silences::default();
        let start = Instant::now();
        assert_eq!(silences.unsaid("a", start), Some(0));
        for _ in 0..3 {
            assert_eq!(silences.unsaid("a", start), None);
        }
        assert_eq!(silences.unsaid("b", start), Some(0));
        let length = Silences::<&str>::LENGTH;
        assert_eq!(silences.unsaid("a", start + length), Some(3));
        assert_eq!(silences.unsaid("a", start + length * 2), Some(0));
    }

    #[test]
    fn kinds_are_forgotten_before_they_fill_the_memory() {
        let silences = Silences::default();
        let now = Instant::now();
        for kind in 0..Silences::<usize>::MOST_KINDS * 2 {
            silences.unsaid(kind, now);
        }
        assert!(silences.0.lock().unwrap().len() <= Silences::<usize>::MOST_KINDS);
    }
}

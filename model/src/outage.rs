//! Saying once that something is away.

use std::error::Error;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Instant;

use crate::{ErrorChain, Silences};

/// Tells whether a failure of what many need, a database for instance, is to be said: the first one, and
/// again when a while has passed since. While it is away everybody fails so, and what fails for another
/// cause meanwhile, as the disk is full for instance, must not go unsaid with them.
#[derive(Debug, Default)]
pub struct Outages(Silences<Kind>);

/// A hash, as the text of a cause may be of any length.
type Kind = u64;

impl Outages {
    /// How many failures with the causes of `error` went unsaid since the last one that was said, which may
    /// be long ago; none where this one is to go unsaid too.
    pub fn unsaid(&self, error: &(dyn Error + 'static), now: Instant) -> Option<u64> {
        self.0.unsaid(kind(&ErrorChain(error).to_string()), now)
    }
}

/// The words of `causes`, but for those with a digit: durations, addresses and ids differ from one failure to
/// the next.
fn kind(causes: &str) -> Kind {
    let has_digit = |word: &str| word.contains(|c: char| c.is_ascii_digit());
    let mut hasher = DefaultHasher::new();
    for word in causes.split_whitespace().filter(|word| !has_digit(word)) {
        word.hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the store cannot be reached")]
    struct Away(#[source] Box<dyn Error>);

    #[test]
    fn an_outage_is_said_once_for_each_cause() {
        let (outages, start) = (Outages::default(), Instant::now());
        let unsaid = |cause: &str, after| outages.unsaid(&Away(cause.into()), start + after);
        let (now, later) = (std::time::Duration::ZERO, Silences::<Kind>::LENGTH);
        let slow = "canceling statement due to statement timeout";
        let full = "could not extend file \"base/16384/2619\": No space left on device";
        assert_eq!(unsaid(slow, now), Some(0));
        assert_eq!(unsaid(slow, now), None);
        assert_eq!(unsaid(full, now), Some(0));
        assert_eq!(unsaid(slow, now), None);
        assert_eq!(unsaid(full, later), Some(0));
        assert_eq!(unsaid(slow, later), Some(2));
    }

    #[test]
    fn numbers_addresses_and_ids_make_no_other_cause() {
        let (outages, now) = (Outages::default(), Instant::now());
        let lost = |node: &str| format!("connection to the remote node {node} failed");
        let asked = |id: &str| format!("no answer about {id} in time");
        for (one, other) in [
            (lost("10.0.0.1:5432"), lost("10.0.0.2:5432")),
            (
                asked("0192f0c1-7a7e-7d0a-8f4e-2b1c5a9d0e11"),
                asked("f7a0c3de-7a7e-7d0a-8f4e-2b1c5a9d0e12"),
            ),
        ] {
            assert_eq!(outages.unsaid(&Away(one.into()), now), Some(0));
            assert_eq!(outages.unsaid(&Away(other.into()), now), None);
        }
    }
}

//! What concurrent callers are answered is linearizable: as if each call had happened at one
//! instant between its invocation and its return.
//!
//! Clients run at once against few keys, and everything they do is recorded with the order of its
//! invocations and returns. The checker then looks for an order of the calls that a [`Register`]
//! would have answered alike:
//!
//! - The search is that of Wing and Gong ("Testing and Verifying Concurrent Objects", Journal of
//!   Parallel and Distributed Computing 17, 1993): of the calls that are left, any that began before
//!   another one ended may come next.
//! - What is remembered, so that nothing is tried twice, is Lowe's configuration, the set of calls
//!   already placed and the state they led to ("Testing for linearizability", Concurrency and
//!   Computation: Practice and Experience 29, 2017).
//! - Keys are judged apart, as linearizability is a property of single objects, which makes long
//!   histories short (Horn and Kroening, "Faster Linearizability Checking via P-Compositionality",
//!   FORTE 2015). The revision floor is shared by the keys of a namespace, so of a created record a
//!   key by itself knows only that its revision is greater than all it had before.
//!
//! A call whose outcome is unknown may have happened at any time after its invocation, or never.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

mod check;
mod record;
mod register;

use self::check::linearize;
use self::record::{History, Patience, record};
use self::register::Answer;
#[cfg(doc)]
use self::register::Register;
use super::Stage;

/// Recordings of each kind.
const RECORDINGS: usize = 4;

pub async fn concurrent_calls_are_answered_in_some_order(stage: &Stage) {
    for _ in 0..RECORDINGS {
        let history = record(stage, Patience::Endless).await;
        ensure_linearizable(&history);
    }
}

pub async fn calls_that_nobody_waits_for_happen_once_or_never(stage: &Stage) {
    for _ in 0..RECORDINGS {
        let history = record(stage, Patience::Limited).await;
        let is_unknown = |call: &check::Call| call.answer == Answer::Unknown;
        assert!(history.iter().flatten().any(is_unknown));
        ensure_linearizable(&history);
    }
}

/// The first violation in a recording, if there is one.
#[cfg(test)]
pub(super) async fn first_violation(stage: &Stage) -> Option<String> {
    for patience in [Patience::Endless, Patience::Limited].repeat(RECORDINGS) {
        let found = violation(&record(stage, patience).await);
        if found.is_some() {
            return found;
        }
    }
    None
}

fn ensure_linearizable(history: &History) {
    if let Some(violation) = violation(history) {
        panic!("{violation}");
    }
}

fn violation(history: &History) -> Option<String> {
    let broken = history
        .iter()
        .enumerate()
        .find_map(|(key, calls)| Some((key, linearize(calls).err()?)));
    broken.map(|(key, violation)| {
        format!("the history of key {key} is not linearizable: {violation}")
    })
}

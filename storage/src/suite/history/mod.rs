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
        assert_eq!(explained(&history), history.len());
    }
}

pub async fn calls_that_nobody_waits_for_happen_once_or_never(stage: &Stage) {
    let (mut keys, mut judged) = (0, 0);
    for _ in 0..RECORDINGS {
        let history = record(stage, Patience::Limited).await;
        let is_unknown = |call: &check::Call| call.answer == Answer::Unknown;
        assert!(history.iter().flatten().any(is_unknown));
        judged += explained(&history);
        keys += history.len();
    }
    // Where much is unknown there may be more orders than can be tried, which says nothing either way.
    assert!(judged * 2 > keys, "only {judged} of {keys} were judged");
}

/// How many keys have a history that an order explains.
///
/// # Panics
/// Where one has none.
fn explained(history: &History) -> usize {
    let explained = history.iter().enumerate().filter(|(key, calls)| {
        let verdict = linearize(calls);
        if let Err(violation) = &verdict
            && violation.is_proven
        {
            panic!("the history of key {key} is not linearizable: {violation}");
        }
        verdict.is_ok()
    });
    explained.count()
}

/// Whether a recording shows a violation.
#[cfg(test)]
pub(super) async fn shows_a_violation(stage: &Stage) -> bool {
    let is_violated =
        |calls: &Vec<check::Call>| linearize(calls).is_err_and(|found| found.is_proven);
    for patience in [Patience::Endless, Patience::Limited].repeat(RECORDINGS) {
        if record(stage, patience).await.iter().any(is_violated) {
            return true;
        }
    }
    false
}

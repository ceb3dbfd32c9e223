//! Any sequence of operations is answered as a map would answer it.
//!
//! Sequences of operations over three installs of two tenants run against the storage and against
//! a [`Model`], and every answer is compared whole. A sequence that shows a difference is shortened
//! to one that a person can read. `PROPTEST_CASES` asks for more sequences than usual.
#![expect(missing_docs, reason = "a behaviour says what it shows in its name")]

mod answer;
mod operation;
mod play;
mod state;

use proptest::collection::vec;
use proptest::test_runner::{Config, TestCaseError, TestError, TestRunner};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use self::operation::{Operation, operation};
use self::play::Play;
use super::Stage;

/// The longest sequence. The states that matter, a full quota with expired records in it for
/// instance, are a dozen operations away.
const LONGEST: usize = 60;

#[cfg_attr(
    not(test),
    expect(
        clippy::unused_async,
        reason = "behaviours are awaited, but proptest knows no futures"
    )
)]
pub async fn every_sequence_of_operations_is_answered_as_the_model_says(stage: &Stage) {
    if let Err(difference) = compare(stage, config()) {
        panic!("{difference}");
    }
}

/// The first difference between the storage and the model, not shortened.
#[cfg(test)]
pub(super) fn first_difference(stage: &Stage) -> Option<String> {
    let config = Config {
        max_shrink_iters: 0,
        ..config()
    };
    let difference = compare(stage, config).err();
    difference.map(|difference| difference.to_string())
}

fn config() -> Config {
    Config {
        // What fails is shown whole; a file would have to be found and replayed.
        failure_persistence: None,
        ..Config::default()
    }
}

/// Plays sequences until one is answered otherwise than by the model.
fn compare(stage: &Stage, config: Config) -> Result<(), TestError<Vec<Operation>>> {
    TestRunner::new(config).run(&vec(operation(), 1..LONGEST), |operations| {
        block_in_place(|| Handle::current().block_on(play(stage, operations)))
    })
}

async fn play(stage: &Stage, operations: Vec<Operation>) -> Result<(), TestCaseError> {
    let mut play = Play::on(stage);
    for operation in operations {
        play.step(&operation).await?;
    }
    play.finish().await
}

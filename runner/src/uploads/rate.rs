//! How often somebody may upload.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time in which only so many are let in.
const WINDOW: Duration = Duration::from_secs(60);
/// How many names are remembered before those are looked for that may be forgotten.
const MANY: usize = 1_024;

/// Lets an actor in at most so many times in any minute.
#[derive(Debug)]
pub(super) struct Rate {
    most: usize,
    let_in: Mutex<LetIn>,
}

/// When who was let in lately.
#[derive(Debug)]
struct LetIn {
    times: HashMap<String, VecDeque<Instant>>,
    /// How many names there must be until those are looked for that may be forgotten: twice as many as the
    /// last time left, so that looking costs each newcomer a constant.
    look_at: usize,
}

impl Rate {
    pub(super) fn per_minute(most: usize) -> Self {
        Self {
            most,
            let_in: Mutex::new(LetIn {
                times: HashMap::new(),
                look_at: MANY,
            }),
        }
    }

    /// Lets `actor` in, or tells when it makes sense to come again.
    pub(super) fn take(&self, actor: &str, now: Instant) -> Result<(), Duration> {
        // Poisoning would need a panic below.
        let mut all = self.let_in.lock().unwrap_or_else(PoisonError::into_inner);
        all.forget(now);
        let times = all.times.entry(actor.to_owned()).or_default();
        while times.front().is_some_and(|first| !is_recent(*first, now)) {
            times.pop_front();
        }
        match times.front() {
            Some(first) if times.len() >= self.most => {
                Err((*first + WINDOW).saturating_duration_since(now))
            }
            _ => {
                times.push_back(now);
                Ok(())
            }
        }
    }
}

impl LetIn {
    /// Forgets who has not come lately, if there are many.
    fn forget(&mut self, now: Instant) {
        if self.times.len() >= self.look_at {
            let is_known = |times: &VecDeque<_>| times.back().is_some_and(|it| is_recent(*it, now));
            self.times.retain(|_, times| is_known(times));
            self.look_at = MANY.max(2 * self.times.len());
        }
    }
}

fn is_recent(time: Instant, now: Instant) -> bool {
    now.saturating_duration_since(time) < WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_allowed_are_let_in_within_any_minute() {
        let (rate, start) = (Rate::per_minute(3), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in [0, 10, 20] {
            assert_eq!(rate.take("ann", at(seconds)), Ok(()), "{seconds}");
        }
        let wait = Duration::from_secs;
        assert_eq!(rate.take("ann", at(20)), Err(wait(40)));
        assert_eq!(rate.take("ann", at(59)), Err(wait(1)));
        assert_eq!(rate.take("ann", at(60)), Ok(()));
        assert_eq!(rate.take("ann", at(60)), Err(wait(10)));
    }

    #[test]
    fn one_actor_is_not_in_the_way_of_another() {
        let (rate, now) = (Rate::per_minute(1), Instant::now());
        assert_eq!(rate.take("ann", now), Ok(()));
        assert_eq!(rate.take("bob", now), Ok(()));
        assert!(rate.take("ann", now).is_err());
    }

    #[test]
    fn who_has_not_come_for_a_minute_is_forgotten() {
        let (rate, start) = (Rate::per_minute(1), Instant::now());
        for actor in 0..MANY {
            rate.take(&actor.to_string(), start).unwrap();
        }
        rate.take("late", start + WINDOW).unwrap();
        assert_eq!(rate.let_in.lock().unwrap().times.len(), 1);
    }

    #[test]
    fn while_many_come_they_are_looked_through_less_and_less_often() {
        let (rate, now) = (Rate::per_minute(1), Instant::now());
        let mut looks = Vec::new();
        for actor in 0..=4 * MANY {
            rate.take(&actor.to_string(), now).unwrap();
            looks.push(rate.let_in.lock().unwrap().look_at);
        }
        looks.dedup();
        assert_eq!(looks, [MANY, 2 * MANY, 4 * MANY, 8 * MANY]);
        rate.take("late", now + WINDOW).unwrap();
        rate.let_in.lock().unwrap().look_at = 0;
        rate.take("later", now + WINDOW).unwrap();
        assert_eq!(rate.let_in.lock().unwrap().look_at, MANY);
    }
}

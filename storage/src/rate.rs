//! How often operations may be called: the generic cell rate algorithm (ITU-T I.371) per install
//! and per tenant.
//!
//! A bucket is one instant, the theoretical arrival time: when the bucket would be full again. That
//! makes the wait of a refused caller exact and a bucket that is full again worth forgetting.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use alga_model::{InstallId, TenantId};

use crate::contract::{RateLimit, Rates};
use crate::grant::Access;

/// The rate limiter of one process.
#[derive(Debug, Default)]
pub(crate) struct RateLimiter {
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    full_at: HashMap<Bucket, Instant, foldhash::fast::RandomState>,
    /// Buckets that are full again are forgotten when there are this many.
    sweep_at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bucket {
    Install(InstallId, Access),
    Tenant(TenantId, Access),
}

const LEAST_SWEEP: usize = 1_024;

impl RateLimiter {
    /// Takes `tokens` from the install and its tenant, from both or neither.
    ///
    /// # Errors
    /// How long to wait until the same call is allowed, if nobody else takes tokens meanwhile.
    pub(crate) fn take(
        &self,
        (tenant, install): (TenantId, InstallId),
        access: Access,
        tokens: u32,
        rates: &Rates,
    ) -> Result<(), Duration> {
        self.take_at(Instant::now(), (tenant, install), access, tokens, rates)
    }

    fn take_at(
        &self,
        now: Instant,
        (tenant, install): (TenantId, InstallId),
        access: Access,
        tokens: u32,
        rates: &Rates,
    ) -> Result<(), Duration> {
        let (limit, of_tenant) = match access {
            Access::Read => (rates.read, rates.tenant_read),
            Access::Write => (rates.write, rates.tenant_write),
        };
        let wanted = [
            (Bucket::Install(install, access), limit),
            (Bucket::Tenant(tenant, access), of_tenant),
        ];
        // Poisoning would need a panic below, which moves plain values only.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut longest_wait = Duration::ZERO;
        let taken = wanted.map(|(bucket, limit)| {
            let full_at = buckets
                .full_at
                .get(&bucket)
                .copied()
                .unwrap_or(now)
                .max(now);
            let full_at = full_at + limit.interval() * tokens.min(limit.burst.max(1));
            let wait = (full_at - now).saturating_sub(limit.interval() * limit.burst.max(1));
            longest_wait = longest_wait.max(wait);
            (bucket, full_at)
        });
        if !longest_wait.is_zero() {
            return Err(longest_wait);
        }
        buckets.full_at.extend(taken);
        buckets.forget_full(now);
        Ok(())
    }
}

impl Buckets {
    fn forget_full(&mut self, now: Instant) {
        if self.full_at.len() >= self.sweep_at.max(LEAST_SWEEP) {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_at = self.full_at.len() * 2;
        }
    }
}

impl RateLimit {
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates::new(
        RateLimit {
            per_second: 10,
            burst: 3,
        },
        RateLimit {
            per_second: 1,
            burst: 1,
        },
        2,
    );

    fn ids() -> (TenantId, InstallId) {
        (TenantId::generate(), InstallId::generate())
    }

    #[test]
    fn the_burst_passes_and_then_the_wait_is_exact() {
        let (limiter, ids, now) = (RateLimiter::default(), ids(), Instant::now());
        let read = |at| limiter.take_at(at, ids, Access::Read, 1, &RATES);
        for _ in 0..3 {
            assert_eq!(read(now), Ok(()));
        }
        let wait = read(now).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(
            read(now + Duration::from_nanos(99_999_999)),
            Err(Duration::from_nanos(1))
        );
        assert_eq!(read(now + wait), Ok(()));
    }

    #[test]
    fn reads_and_writes_and_installs_have_buckets_of_their_own() {
        let (limiter, now) = (RateLimiter::default(), Instant::now());
        let (tenant, install) = ids();
        assert!(
            limiter
                .take_at(now, (tenant, install), Access::Write, 1, &RATES)
                .is_ok()
        );
        assert!(
            limiter
                .take_at(now, (tenant, install), Access::Write, 1, &RATES)
                .is_err()
        );
        assert!(
            limiter
                .take_at(now, (tenant, install), Access::Read, 3, &RATES)
                .is_ok()
        );
        assert!(
            limiter
                .take_at(
                    now,
                    (tenant, InstallId::generate()),
                    Access::Write,
                    1,
                    &RATES
                )
                .is_ok()
        );
    }

    #[test]
    fn the_installs_of_a_tenant_share_its_rate() {
        let (limiter, now, tenant) = (RateLimiter::default(), Instant::now(), TenantId::generate());
        let write = || {
            limiter.take_at(
                now,
                (tenant, InstallId::generate()),
                Access::Write,
                1,
                &RATES,
            )
        };
        assert_eq!([write(), write()], [Ok(()), Ok(())]);
        assert_eq!(write(), Err(Duration::from_millis(500)));
    }

    #[test]
    fn a_refused_call_takes_nothing() {
        let (limiter, ids, now) = (RateLimiter::default(), ids(), Instant::now());
        assert!(limiter.take_at(now, ids, Access::Read, 2, &RATES).is_ok());
        assert!(limiter.take_at(now, ids, Access::Read, 2, &RATES).is_err());
        assert!(limiter.take_at(now, ids, Access::Read, 1, &RATES).is_ok());
    }

    #[test]
    fn more_tokens_than_the_burst_wait_for_a_full_bucket() {
        let (limiter, ids, now) = (RateLimiter::default(), ids(), Instant::now());
        assert!(limiter.take_at(now, ids, Access::Read, 100, &RATES).is_ok());
        assert_eq!(
            limiter.take_at(now, ids, Access::Read, 100, &RATES),
            Err(Duration::from_millis(300))
        );
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let (limiter, now) = (RateLimiter::default(), Instant::now());
        for i in 0..10_000 {
            let later = now + Duration::from_secs(i);
            limiter
                .take_at(later, ids(), Access::Read, 1, &RATES)
                .unwrap();
        }
        assert!(limiter.buckets.lock().unwrap().full_at.len() <= LEAST_SWEEP);
    }
}

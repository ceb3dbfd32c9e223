//! Requests that are answered once, however often they are repeated.

use std::fmt;
use std::str::FromStr;

use alga_model::{ContentHash, ErrorChain, InstallId, TenantId, Timestamp};
use uuid::Uuid;

use crate::bounds::ensure;
use crate::error::RegistryError;

/// The most bytes of an answer that is kept with its content.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;
/// The most answers that are removed at once.
pub const MAX_ANSWERS_REMOVAL: u32 = 10_000;

/// What a caller knows a request by: 1 to 255 visible ASCII characters. Every install has keys of
/// its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// A text that is no [`IdempotencyKey`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key must be 1 to 255 visible ASCII characters")]
pub struct ParseIdempotencyKeyError;

/// A request with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyedRequest {
    /// Who is asked.
    pub install: InstallId,
    /// What the caller knows it by.
    pub key: IdempotencyKey,
    /// What it is; another one under the same key is a mistake of the caller.
    pub digest: ContentHash,
}

/// What is known of a request whose key was used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// Somebody else is answering it.
    Theirs,
    /// This is the answer.
    Answered(KeptAnswer),
    /// The key was used for another request.
    OtherRequest,
}

/// What became of the wish to answer a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is the caller's to answer, and nobody else's until the lease is over.
    Ours(Claim),
    /// Somebody was there before.
    Known(Known),
}

/// An answer, or the mark that there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Its status, as the caller names it.
    pub status: u16,
    /// How many bytes its content has, kept or not.
    pub bytes: u64,
    /// What it is, at most [`MAX_ANSWER_BYTES`]; nothing where only the mark is kept.
    pub content: Option<Vec<u8>>,
}

/// How much is kept for an install, and for all installs of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerQuotas {
    /// For one install.
    pub install: AnswerQuota,
    /// For all installs of one tenant together.
    pub tenant: AnswerQuota,
}

/// How many answers are kept, and how large their contents may be together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerQuota {
    /// Answers, with or without content.
    pub answers: u64,
    /// Bytes of all contents.
    pub bytes: u64,
}

/// The right to answer a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub(crate) install: InstallId,
    pub(crate) tenant: TenantId,
    pub(crate) key: IdempotencyKey,
    pub(crate) id: Uuid,
}

/// What is stored about a key that was used.
#[derive(Debug)]
pub(crate) struct UsedKey {
    pub(crate) digest: ContentHash,
    pub(crate) expires_at: Timestamp,
    pub(crate) answer: Option<KeptAnswer>,
}

impl IdempotencyKey {
    const MAX_BYTES: usize = 255;

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = ParseIdempotencyKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fine = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        fine.then(|| Self(text.to_owned()))
            .ok_or(ParseIdempotencyKeyError)
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Claim {
    /// The right to answer `request`, whose install is one of `tenant`, under a new `id`.
    pub(crate) fn of(request: &KeyedRequest, tenant: TenantId, id: Uuid) -> Self {
        Self {
            install: request.install,
            tenant,
            key: request.key.clone(),
            id,
        }
    }
}

impl UsedKey {
    /// What this means for `request`; nothing where it counts no longer.
    pub(crate) fn judge(self, request: &KeyedRequest, now: Timestamp) -> Option<Known> {
        if self.expires_at <= now {
            return None;
        }
        Some(match self.answer {
            _ if self.digest != request.digest => Known::OtherRequest,
            Some(answer) => Known::Answered(answer),
            None => Known::Theirs,
        })
    }
}

impl KeptAnswer {
    pub(crate) fn ensure_valid(&self) -> Result<(), RegistryError> {
        let content = self.content.as_ref();
        let fits = content.is_none_or(|content| content.len() <= MAX_ANSWER_BYTES);
        ensure(fits, "the answer", "at most 1 MiB")
    }
}

pub(crate) fn ensure_removal_limit(limit: u32) -> Result<(), RegistryError> {
    let fits = (1..=MAX_ANSWERS_REMOVAL).contains(&limit);
    ensure(fits, "limit", "1 to 10000")
}

/// Tells that answers of an uninstalled install are still there. Nobody is answered with them any more,
/// and they are over within a day.
pub(crate) fn tell_kept_for_now(install: InstallId, error: &RegistryError) {
    tracing::warn!(
        install.id = %install,
        error = %ErrorChain(error),
        error.blame = "host",
        "the answers of an uninstalled install are removed later"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii_within_its_bounds() {
        for key in [
            "a",
            "!~",
            "8e03978e-40d5-43e8-bc93-6894a57f9324",
            &"k".repeat(255),
        ] {
            assert_eq!(key.parse::<IdempotencyKey>().unwrap().as_str(), key);
        }
        for key in ["", " ", "a b", "a\n", "a\u{7f}", "\u{e4}", &"k".repeat(256)] {
            assert!(key.parse::<IdempotencyKey>().is_err(), "{key:?}");
        }
    }
}

//! What was changed, for whoever remembers how it was.

use std::fmt;

use alga_model::{InstallId, TenantId};
use async_trait::async_trait;

use crate::error::RegistryError;

/// What was changed: whoever remembers something of it looks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// An install, or there is a new one.
    Install(InstallId),
    /// What is set for a tenant.
    Tenant(TenantId),
    /// The switches, or more than can be named.
    All,
}

/// Hears of changes, by whichever process they are made.
#[async_trait]
pub trait Listener: fmt::Debug + Send {
    /// The next change. It was committed before.
    ///
    /// # Errors
    /// Where nothing more is heard. What was changed since may be lost: listen anew, and then look at
    /// everything again.
    async fn next(&mut self) -> Result<Changed, RegistryError>;
}

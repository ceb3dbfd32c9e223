//! Which registry it is.

use alga_model::TenantId;

use super::{Outcome, installed};
use crate::registry::Registry;

/// Whatever happens in it, a registry stays the one it is.
pub async fn a_registry_stays_the_one_it_is(registry: &dyn Registry) -> Outcome {
    let identity = registry.identity().await?;
    assert!(!identity.is_nil());
    installed(registry, "notes", TenantId::generate()).await?;
    assert_eq!(registry.identity().await?, identity);
    Ok(())
}

//! Limit overrides: where what an install or a tenant may use differs from the defaults.

use serde_json::Value;

use crate::bounds::{ensure_json_size, ensure_readable};
use crate::error::RegistryError;

const MAX_BYTES: usize = 16 * 1024;

/// Ensures that `limits` nest at most 64 deep, would be read as what they are, and are at most 16 KiB of
/// JSON.
pub(crate) fn ensure_valid(limits: Option<&Value>) -> Result<(), RegistryError> {
    let Some(limits) = limits else { return Ok(()) };
    ensure_readable("limits", limits)?;
    ensure_json_size("limits", "at most 16 KiB of JSON", limits, MAX_BYTES)
}

//! Grants: what an install may do.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::bounds::{ensure_json_size, ensure_plain_text, ensure_shallow};
use crate::error::RegistryError;

/// The grant of each capability, by the capability's name, such as `alga.storage`.
///
/// The registry keeps a grant as it was given; only the capability's own crate knows what it
/// means. Names are 1 to 128 bytes without control characters, a grant nests at most 64 deep, and
/// all of them together are at most 64 KiB of JSON.
pub type Grants = BTreeMap<String, Value>;

const MAX_CAPABILITY_BYTES: usize = 128;
const MAX_GRANTS_BYTES: usize = 64 * 1024;

pub(crate) fn ensure_valid(grants: &Grants) -> Result<(), RegistryError> {
    for (capability, grant) in grants {
        ensure_plain_text(
            "capability",
            "1 to 128 bytes without control characters",
            capability,
            MAX_CAPABILITY_BYTES,
        )?;
        ensure_shallow("grant", grant)?;
    }
    ensure_json_size("grants", "at most 64 KiB of JSON", grants, MAX_GRANTS_BYTES)
}

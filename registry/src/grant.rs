//! Grants: what an install may do.

use std::collections::BTreeMap;

use alga_model::is_reserved_member;
use serde_json::Value;

use crate::bounds::{RESERVED_RULE, ensure, ensure_json_size, ensure_plain_text, ensure_readable};
use crate::error::RegistryError;

/// The grant of each capability, by the capability's name, such as `alga.storage`.
///
/// The registry keeps a grant as it was given; only the capability's own crate knows what it
/// means. Names are 1 to 128 bytes without control characters, a grant nests at most 64 deep, all of
/// them together are at most 64 KiB of JSON, and no name in them is one that the parser of JSON keeps for
/// itself (see [`alga_model::parse_json`]).
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
        ensure(!is_reserved_member(capability), "capability", RESERVED_RULE)?;
        ensure_readable("grant", grant)?;
    }
    ensure_json_size("grants", "at most 64 KiB of JSON", grants, MAX_GRANTS_BYTES)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn grants_would_be_read_as_they_were_written() {
        let reserved = "$serde_json::private::RawValue";
        let of = |capability: &str, grant| Grants::from([(capability.to_owned(), grant)]);
        assert!(ensure_valid(&of("alga.storage", json!({ "a": reserved }))).is_ok());
        assert!(ensure_valid(&of("alga.storage", json!({ reserved: "7" }))).is_err());
        // An audit record holds all of them as one value.
        assert!(ensure_valid(&of(reserved, json!("7"))).is_err());
    }
}

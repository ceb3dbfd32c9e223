//! JSON as databases keep it: as text.

use serde::Serialize;

use crate::error::RegistryError;

/// The JSON text of `value`.
pub(crate) fn text(value: &(impl Serialize + ?Sized)) -> Result<String, RegistryError> {
    serde_json::to_string(value).map_err(|error| RegistryError::Internal {
        source: error.into(),
    })
}

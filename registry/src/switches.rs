//! Switches: what an administrator turns on and off for the whole deployment.

use std::collections::BTreeSet;

use alga_model::{ExtensionName, Timestamp};

use crate::bounds::ensure_json_size;
use crate::change::ensure_generation;
use crate::error::RegistryError;

/// What applies to every install of every tenant. The default is what holds until somebody
/// changes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switches {
    /// Whether the storage may be used.
    pub storage: bool,
    /// The extensions that are allowed: `None` for all of them, an empty set for none.
    pub allowed_extensions: Option<BTreeSet<ExtensionName>>,
    /// 0 at first, one more with every change.
    pub generation: u64,
    /// When they were last changed; `None` if never.
    pub updated_at: Option<Timestamp>,
}

impl Switches {
    /// Whether the extension is allowed.
    pub fn allows(&self, extension: &ExtensionName) -> bool {
        self.allowed_extensions
            .as_ref()
            .is_none_or(|allowed| allowed.contains(extension))
    }

    /// These switches after `edit`; `None` when the edit changes nothing.
    pub(crate) fn edited(
        &self,
        edit: &SwitchesEdit,
        expected_generation: Option<u64>,
        now: Timestamp,
    ) -> Result<Option<Self>, RegistryError> {
        ensure_generation(self.generation, expected_generation)?;
        let mut after = self.clone();
        match edit.clone() {
            SwitchesEdit::Storage(storage) => after.storage = storage,
            SwitchesEdit::AllowedExtensions(allowed) => after.allowed_extensions = allowed,
            SwitchesEdit::All {
                storage,
                allowed_extensions,
            } => {
                after.storage = storage;
                after.allowed_extensions = allowed_extensions;
            }
        }
        if after == *self {
            return Ok(None);
        }
        after.generation = self.generation.saturating_add(1);
        after.updated_at = Some(now);
        Ok(Some(after))
    }
}

impl Default for Switches {
    fn default() -> Self {
        Self {
            storage: true,
            allowed_extensions: None,
            generation: 0,
            updated_at: None,
        }
    }
}

/// One change of the switches. What it names is replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SwitchesEdit {
    /// Turns the storage on or off.
    Storage(bool),
    /// Replaces the list of allowed extensions, at most 64 KiB of JSON; `None` allows all. A name
    /// need not be registered yet.
    AllowedExtensions(Option<BTreeSet<ExtensionName>>),
    /// Replaces both at once.
    All {
        /// Whether the storage may be used.
        storage: bool,
        /// The list, as above.
        allowed_extensions: Option<BTreeSet<ExtensionName>>,
    },
}

impl SwitchesEdit {
    const MAX_ALLOWED_BYTES: usize = 64 * 1024;

    pub(crate) fn ensure_valid(&self) -> Result<(), RegistryError> {
        match self {
            Self::Storage(_)
            | Self::AllowedExtensions(None)
            | Self::All {
                allowed_extensions: None,
                ..
            } => Ok(()),
            Self::AllowedExtensions(Some(allowed))
            | Self::All {
                allowed_extensions: Some(allowed),
                ..
            } => ensure_json_size(
                "allowed extensions",
                "at most 64 KiB of JSON",
                allowed,
                Self::MAX_ALLOWED_BYTES,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_list_allows_all_and_a_list_what_is_on_it() {
        let [notes, other]: [ExtensionName; 2] =
            ["com.example.notes", "com.example.other"].map(|name| name.parse().unwrap());
        let allowing = |allowed: Option<&[&ExtensionName]>| Switches {
            allowed_extensions: allowed.map(|names| names.iter().copied().cloned().collect()),
            ..Switches::default()
        };
        for (allowed, expected) in [
            (None, (true, true)),
            (Some(&[&notes, &other][..]), (true, true)),
            (Some(&[&notes][..]), (true, false)),
            (Some(&[][..]), (false, false)),
        ] {
            let switches = allowing(allowed);
            assert_eq!(
                (switches.allows(&notes), switches.allows(&other)),
                expected,
                "{switches:?}"
            );
        }
    }
}

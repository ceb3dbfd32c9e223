//! Settings of the master key.

use alga_model::Secret;

use super::kind::{FileOfKey, Key, KeyFile, Optional};
use super::setting::section;

section! {
    /// The master key, and the one before it while its products are still around.
    pub struct KeysConfig {
        /// The master key. Where neither it nor its file is set, one is made in the data folder; with `database.url` one must be set.
        master_key: Option<Secret<[u8; 32]>> = None, "keys.master_key": Optional(Key);
        /// The file of the master key, which others must not be able to read.
        master_key_file: Option<KeyFile> = None, "keys.master_key_file": Optional(FileOfKey);
        /// The master key before a rotation, still accepted.
        former_master_key: Option<Secret<[u8; 32]>> = None, "keys.former_master_key": Optional(Key);
        /// The file of the master key before a rotation.
        former_master_key_file: Option<KeyFile> = None, "keys.former_master_key_file": Optional(FileOfKey);
    }
}

impl KeysConfig {
    /// The master key, if one is configured.
    pub fn current(&self) -> Option<&Secret<[u8; 32]>> {
        either(self.master_key.as_ref(), self.master_key_file.as_ref())
    }

    /// The master key before it, if one is configured.
    pub fn former(&self) -> Option<&Secret<[u8; 32]>> {
        either(
            self.former_master_key.as_ref(),
            self.former_master_key_file.as_ref(),
        )
    }
}

fn either<'a>(
    key: Option<&'a Secret<[u8; 32]>>,
    file: Option<&'a KeyFile>,
) -> Option<&'a Secret<[u8; 32]>> {
    key.or(file.map(|file| &file.key))
}

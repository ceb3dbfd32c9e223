//! What a setting is, and the declaration that makes a section of them.

use super::kind::Kind;
use super::reader::Reader;

/// A setting, as it is declared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// Its name in a file, with the section: `engine.timeout_ms`.
    pub key: &'static str,
    /// Its variable, where that doesn't follow from the key.
    pub special_variable: Option<&'static str>,
    /// What it means.
    pub about: &'static str,
}

impl Setting {
    /// What the names of our own variables begin with.
    pub(super) const PREFIX: &str = "ALGA_";

    /// Its variable: `ALGA_ENGINE_TIMEOUT_MS`.
    pub(super) fn variable(&self) -> String {
        self.special_variable.map_or_else(
            || {
                format!(
                    "{}{}",
                    Self::PREFIX,
                    self.key.replace('.', "_").to_uppercase()
                )
            },
            str::to_owned,
        )
    }

    /// The section and the name within it; the section is empty at the top of a file.
    pub(super) fn split(&self) -> (&'static str, &'static str) {
        self.key.rsplit_once('.').unwrap_or(("", self.key))
    }
}

/// A setting together with its present value.
#[derive(Debug)]
pub(super) struct Shown {
    pub setting: Setting,
    /// The value in TOML, secrets masked; nothing where it is not set.
    pub value: Option<String>,
    /// What the setting takes.
    pub expects: String,
}

impl Shown {
    pub(super) fn new<K: Kind>(setting: Setting, kind: &K, value: &K::Value) -> Self {
        Self {
            setting,
            value: kind.show(value),
            expects: kind.expects(),
        }
    }
}

/// Settings that belong together.
pub(super) trait Section {
    /// Reads every setting of the section.
    fn read(reader: &mut Reader) -> Self
    where
        Self: Sized;

    /// Every setting of the section with its present value, in the order of declaration.
    fn shown(&self) -> Vec<Shown>;
}

/// Declares a section: a struct whose fields are settings. Everything there is to know about a
/// setting is said once, from which reading, `config print` and the table in the documentation
/// are made:
///
/// ```text
/// /// What it means.
/// field: Type = default, "section.key": kind;
/// /// What it means.
/// field: Type = default, "section.key" or "SPECIAL_VARIABLE": kind;
/// ```
macro_rules! section {
    (
        $(#[doc = $about_section:literal])+
        pub struct $section:ident {
            $(
                $(#[doc = $about:literal])+
                $field:ident: $type:ty = $default:expr, $key:literal $(or $variable:literal)?: $kind:expr;
            )+
        }
    ) => {
        $(#[doc = $about_section])+
        #[derive(Debug, Clone)]
        pub struct $section {
            $(
                $(#[doc = $about])+
                #[doc = concat!("\n\nThe setting `", $key, "`", $(", variable `", $variable, "`",)? "; ", stringify!($default), " unless set.")]
                pub $field: $type,
            )+
        }

        impl Default for $section {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $crate::config::setting::Section for $section {
            fn read(reader: &mut $crate::config::reader::Reader) -> Self {
                $(let $field = reader.read(
                    &section!(@setting $key, [$($variable)?], $($about)+),
                    &$kind,
                    $default,
                );)+
                Self { $($field,)+ }
            }

            fn shown(&self) -> Vec<$crate::config::setting::Shown> {
                vec![$($crate::config::setting::Shown::new(
                    section!(@setting $key, [$($variable)?], $($about)+),
                    &$kind,
                    &self.$field,
                ),)+]
            }
        }
    };
    (@setting $key:literal, [$($variable:literal)?], $($about:literal)+) => {
        $crate::config::setting::Setting {
            key: $key,
            special_variable: None$(.or(Some($variable)))?,
            about: concat!($($about),+),
        }
    };
}
pub(super) use section;

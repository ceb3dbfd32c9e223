//! What somebody may have meant who named a limit that there isn't.

use super::field::{FIELDS, Field};

/// A slip changes a few letters; beyond that a suggestion misleads.
const FARTHEST: usize = 3;
/// No name is as long, and the work grows with the length.
const LONGEST: usize = 64;

/// That there is no such section, and which one may be meant.
pub(super) fn no_section(section: &str) -> String {
    let meant = section_like(section)
        .map(ToOwned::to_owned)
        .or_else(|| field_like("", section).map(ToString::to_string));
    let hint = hint(meant, ", only requests, quotas and rates");
    format!("there is no section {}{hint}", section.escape_debug())
}

/// That there is no such limit in a section, and which one may be meant.
pub(super) fn no_limit(section: &str, name: &str) -> String {
    let hint = hint(field_like(section, name).map(ToString::to_string), "");
    format!("there is no limit {section}.{}{hint}", name.escape_debug())
}

fn hint(meant: Option<String>, otherwise: &str) -> String {
    meant.map_or_else(
        || otherwise.to_owned(),
        |meant| format!("; did you mean {meant}?"),
    )
}

fn section_like(name: &str) -> Option<&'static str> {
    // The settings call it so.
    if name == "limits" {
        return Some("requests");
    }
    let sections = FIELDS.iter().map(|field| field.section);
    let distance = |section: &&str| distance(name, section);
    sections
        .min_by_key(distance)
        .filter(|section| distance(section) <= FARTHEST)
}

/// The limit whose name is most like `name`; of several, that of the section.
fn field_like(section: &str, name: &str) -> Option<&'static Field> {
    let distance = |field: &&Field| distance(name, field.name);
    FIELDS
        .iter()
        .min_by_key(|field| (distance(field), field.section != section))
        .filter(|field| distance(field) <= FARTHEST)
}

/// How many letters differ, whether a name is written in `camelCase`, `snake_case` or `kebab-case`.
fn distance(name: &str, known: &str) -> usize {
    if name.len() > LONGEST {
        return usize::MAX;
    }
    let plain = |name: &str| name.replace(['_', '-'], "").to_lowercase();
    strsim::levenshtein(&plain(name), &plain(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearly_a_name_is_told_which() {
        for (section, name, meant) in [
            ("quotas", "keys_per_namespace", "quotas.keysPerNamespace"),
            ("quotas", "keys-per-namespace", "quotas.keysPerNamespace"),
            ("quotas", "KeysPerNamespaces", "quotas.keysPerNamespace"),
            ("rates", "keysPerNamespace", "quotas.keysPerNamespace"),
            ("rates", "readPerSec", "rates.readPerSecond"),
            ("requests", "valueBits", "requests.valueBytes"),
        ] {
            let said = no_limit(section, name);
            let hint = format!("; did you mean {meant}?");
            assert!(said.ends_with(&hint), "{said}");
        }
        for (section, meant) in [
            ("limits", "requests"),
            ("quota", "quotas"),
            ("Rates", "rates"),
            ("writeBurst", "rates.writeBurst"),
        ] {
            let said = no_section(section);
            let hint = format!("there is no section {section}; did you mean {meant}?");
            assert_eq!(said, hint);
        }
    }

    #[test]
    fn what_is_like_no_name_is_told_none() {
        let long = "b".repeat(LONGEST + 1);
        for name in ["", "sheep", &long] {
            assert!(!no_limit("quotas", name).contains("did you mean"), "{name}");
            assert!(no_section(name).contains("only requests"), "{name}");
        }
    }
}

//! The bounds of what the registry stores, checked before any backend sees it.

use alga_model::has_reserved_member;
use serde::Serialize;
use serde_json::Value;

use crate::error::RegistryError;

/// How deep a JSON value may nest.
///
/// Half of what a parser here accepts, so that a value can be read back from inside a document
/// that holds it, such as an audit record.
const MAX_DEPTH: usize = 64;

/// See [`alga_model::parse_json`].
pub(crate) const RESERVED_RULE: &str = "free of names that begin with $serde_json::private::";

/// Ensures that `text` is 1 to `max_bytes` bytes without control characters.
pub(crate) fn ensure_plain_text(
    field: &'static str,
    rule: &'static str,
    text: &str,
    max_bytes: usize,
) -> Result<(), RegistryError> {
    let plain = (1..=max_bytes).contains(&text.len()) && !text.chars().any(char::is_control);
    ensure(plain, field, rule)
}

/// Ensures that `value` nests at most 64 deep, and that its text would be read as what it is.
pub(crate) fn ensure_readable(field: &'static str, value: &Value) -> Result<(), RegistryError> {
    ensure(is_within(value, MAX_DEPTH), field, "nested at most 64 deep")?;
    ensure(!has_reserved_member(value), field, RESERVED_RULE)
}

/// Ensures that the JSON text of `value` is at most `max_bytes` long.
pub(crate) fn ensure_json_size(
    field: &'static str,
    rule: &'static str,
    value: &impl Serialize,
    max_bytes: usize,
) -> Result<(), RegistryError> {
    let fits = serde_json::to_vec(value).is_ok_and(|text| text.len() <= max_bytes);
    ensure(fits, field, rule)
}

/// Ensures that `holds`, the `rule` for `field`.
pub(crate) fn ensure(
    holds: bool,
    field: &'static str,
    rule: &'static str,
) -> Result<(), RegistryError> {
    if holds {
        Ok(())
    } else {
        Err(RegistryError::Invalid { field, rule })
    }
}

/// Whether `value` nests at most `levels` deep; never looks deeper than that.
fn is_within(value: &Value, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return !(value.is_array() || value.is_object());
    };
    match value {
        Value::Array(items) => items.iter().all(|item| is_within(item, below)),
        Value::Object(members) => members.values().all(|member| is_within(member, below)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
    }

    #[test]
    fn a_value_may_nest_up_to_the_limit() {
        assert!(ensure_readable("grant", &nested(MAX_DEPTH - 1)).is_ok());
        assert!(ensure_readable("grant", &nested(MAX_DEPTH)).is_ok());
        assert!(ensure_readable("grant", &nested(MAX_DEPTH + 1)).is_err());
    }

    #[test]
    fn what_would_be_read_as_something_else_is_refused() {
        let reserved = serde_json::json!([{ "$serde_json::private::RawValue": "7" }]);
        assert!(ensure_readable("grant", &reserved).is_err());
        let text = serde_json::json!(["$serde_json::private::RawValue"]);
        assert!(ensure_readable("grant", &text).is_ok());
    }

    #[test]
    fn text_is_bounded_and_free_of_control_characters() {
        let check = |text: &str| ensure_plain_text("actor", "short", text, 4).is_ok();
        assert!(check("a") && check("abc") && check("abcd") && check("äö"));
        assert!(
            !check("")
                && !check("abcde")
                && !check("äöü")
                && !check("a\0")
                && !check("a\n")
                && !check("\u{85}")
        );
    }

    #[test]
    fn json_is_bounded_by_its_text() {
        let check = |text: &str| ensure_json_size("limits", "short", &text, 6).is_ok();
        assert!(check("abc") && check("abcd"));
        assert!(!check("abcde"));
    }
}

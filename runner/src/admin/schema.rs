//! JSON schemas of what is asked and answered.

use serde_json::{Map, Value, json};

/// What is asked: these members, and no others.
pub(super) fn parameters(required: &[(&str, Value)], optional: &[(&str, Value)]) -> Value {
    let mut schema = answer(required);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        let optional = optional.iter().cloned();
        properties.extend(optional.map(|(name, schema)| (name.to_owned(), schema)));
    }
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    schema
}

/// What is answered: these members, all of them; later releases may add some.
pub(super) fn answer(members: &[(&str, Value)]) -> Value {
    let properties: Map<String, Value> = members
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    let names: Vec<_> = members.iter().map(|(name, _)| *name).collect();
    json!({ "type": "object", "properties": properties, "required": names })
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

pub(super) fn uuid() -> Value {
    json!({ "type": "string", "format": "uuid" })
}

pub(super) fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

pub(super) fn truth() -> Value {
    json!({ "type": "boolean" })
}

pub(super) fn count() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

/// A name of an extension.
pub(super) fn name() -> Value {
    json!({ "type": "string", "examples": ["com.example.notes"] })
}

/// The digest of a bundle.
pub(super) fn hash() -> Value {
    json!({ "type": "string", "pattern": "^sha256:[0-9a-f]{64}$" })
}

/// Grants by capability, in the shape of the manifest's capabilities.
pub(super) fn grants() -> Value {
    json!({
        "type": "object",
        "examples": [{ "alga.storage": { "namespaces": [{ "name": "notes", "access": ["read"] }] } }],
    })
}

/// Limits in the shape of overrides.
pub(super) fn limits() -> Value {
    json!({ "type": "object", "examples": [{ "quotas": { "keysPerNamespace": 20_000 } }] })
}

pub(super) fn list(of: &Value) -> Value {
    json!({ "type": "array", "items": of })
}

pub(super) fn map(of: &Value) -> Value {
    json!({ "type": "object", "additionalProperties": of })
}

/// Either, or null.
pub(super) fn nullable(schema: &Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

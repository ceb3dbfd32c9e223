//! From a method and a path to what is asked for.

use alloc::string::String;
use alloc::vec::Vec;

/// What a request asks for.
#[derive(Debug, PartialEq)]
pub enum Route {
    /// `GET /`
    Greet,
    /// `GET /notes`
    List,
    /// `POST /notes`
    Create,
    /// `GET /notes/{id}`
    Read(String),
    /// `PUT /notes/{id}`
    Write(String),
    /// `DELETE /notes/{id}`
    Remove(String),
    /// `POST /notes/{id}/lines`
    AppendLine(String),
}

/// Why a request is not routed.
#[derive(Debug, PartialEq)]
pub enum Refusal {
    UnknownPath,
    /// The path exists, but only for the methods in `allow`.
    WrongMethod {
        allow: &'static str,
    },
}

/// Finds the route of a request. The path is relative to the extension and still percent-encoded.
pub fn route(method: &str, path: &str) -> Result<Route, Refusal> {
    // Split before decoding: `%2F` in an id is a part of it, not a separator.
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/');
    match (
        segments.next(),
        segments.next(),
        segments.next(),
        segments.next(),
    ) {
        (Some(""), None, None, None) => match method {
            "GET" => Ok(Route::Greet),
            _ => Err(Refusal::WrongMethod { allow: "GET" }),
        },
        (Some("notes"), None, None, None) => match method {
            "GET" => Ok(Route::List),
            "POST" => Ok(Route::Create),
            _ => Err(Refusal::WrongMethod { allow: "GET, POST" }),
        },
        (Some("notes"), Some(id), None, None) => {
            let id = note_id(id)?;
            match method {
                "GET" => Ok(Route::Read(id)),
                "PUT" => Ok(Route::Write(id)),
                "DELETE" => Ok(Route::Remove(id)),
                _ => Err(Refusal::WrongMethod {
                    allow: "GET, PUT, DELETE",
                }),
            }
        }
        (Some("notes"), Some(id), Some("lines"), None) => {
            let id = note_id(id)?;
            match method {
                "POST" => Ok(Route::AppendLine(id)),
                _ => Err(Refusal::WrongMethod { allow: "POST" }),
            }
        }
        _ => Err(Refusal::UnknownPath),
    }
}

/// The value of a query parameter, decoded; none where it is absent or not decodable.
pub fn parameter(query: &str, name: &str) -> Option<String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| decode(&value.replace('+', " ")))
}

/// The id in a path segment. Which ids are good is the storage contract's business, so only what
/// cannot be an id at all is refused here.
fn note_id(segment: &str) -> Result<String, Refusal> {
    decode(segment)
        .filter(|id| !id.is_empty())
        .ok_or(Refusal::UnknownPath)
}

/// Decodes `%xx`; none where an escape is broken or the result is not UTF-8.
fn decode(encoded: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => hex_digit(bytes.next()?)? << 4 | hex_digit(bytes.next()?)?,
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Encodes a text as one path segment.
pub fn encode(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(DIGITS[usize::from(byte >> 4)]));
            encoded.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    encoded
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_its_route() {
        let id = || "todo".to_owned();
        for (method, path, expected) in [
            ("GET", "/", Route::Greet),
            ("GET", "/notes", Route::List),
            ("POST", "/notes", Route::Create),
            ("GET", "/notes/todo", Route::Read(id())),
            ("PUT", "/notes/todo", Route::Write(id())),
            ("DELETE", "/notes/todo", Route::Remove(id())),
            ("POST", "/notes/todo/lines", Route::AppendLine(id())),
        ] {
            assert_eq!(route(method, path), Ok(expected), "{method} {path}");
        }
    }

    #[test]
    fn an_id_is_decoded_after_the_path_is_split() {
        let read = |id: &str| Ok(Route::Read(id.to_owned()));
        assert_eq!(route("GET", "/notes/a%20b"), read("a b"));
        assert_eq!(route("GET", "/notes/a%2Fb"), read("a/b"));
        assert_eq!(route("GET", "/notes/%C3%BC"), read("ü"));
        assert_eq!(route("GET", "/notes/a+b"), read("a+b"));
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        for (method, path, allow) in [
            ("POST", "/", "GET"),
            ("DELETE", "/notes", "GET, POST"),
            ("POST", "/notes/a", "GET, PUT, DELETE"),
            ("GET", "/notes/a/lines", "POST"),
            ("get", "/notes", "GET, POST"),
        ] {
            assert_eq!(
                route(method, path),
                Err(Refusal::WrongMethod { allow }),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn other_paths_are_unknown() {
        for path in [
            "",
            "/x",
            "/Notes",
            "/notes/",
            "/notes/a/",
            "/notes/a/b",
            "/notes/a/lines/1",
            "//notes",
        ] {
            // The empty path is the root without its slash.
            let expected = if path.is_empty() {
                Ok(Route::Greet)
            } else {
                Err(Refusal::UnknownPath)
            };
            assert_eq!(route("GET", path), expected, "{path}");
        }
    }

    #[test]
    fn a_broken_escape_names_nothing() {
        for path in ["/notes/%", "/notes/%4", "/notes/%zz", "/notes/%FF"] {
            assert_eq!(route("GET", path), Err(Refusal::UnknownPath), "{path}");
        }
    }

    #[test]
    fn parameters_are_found_by_their_whole_name() {
        let query = "limit=5&prefix=a%26b+c&empty=&flag";
        assert_eq!(parameter(query, "limit").as_deref(), Some("5"));
        assert_eq!(parameter(query, "prefix").as_deref(), Some("a&b c"));
        assert_eq!(parameter(query, "empty").as_deref(), Some(""));
        assert_eq!(parameter(query, "flag"), None);
        assert_eq!(parameter(query, "lim"), None);
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for text in ["plain", "a b/c", "100 %", "grün ✓", "?#&=+"] {
            assert_eq!(decode(&encode(text)).as_deref(), Some(text));
        }
    }
}

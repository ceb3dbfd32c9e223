//! As much JSON as notes need: objects whose members are text are read, objects are written.
//!
//! A general library would be most of the component. Values that are only passed on, such as a
//! stored note, are not parsed at all: storage gives and takes JSON as text.

use alloc::string::String;

/// Why a text is not what [`read_texts`] reads.
#[derive(Debug, PartialEq)]
pub enum Malformed {
    /// Not JSON, or not an object of text members.
    Syntax,
    /// A member that nobody asked for.
    UnknownMember,
    /// The same member twice.
    DuplicateMember,
}

/// Reads a JSON object whose members are all text, and no others than `names`; none for those that
/// are absent.
pub fn read_texts<const N: usize>(
    json: &str,
    names: [&str; N],
) -> Result<[Option<String>; N], Malformed> {
    let mut values = [const { None }; N];
    read_members(json, &names, &mut values)?;
    Ok(values)
}

/// The part of [`read_texts`] that is the same for every number of names, and so there only once.
fn read_members(
    json: &str,
    names: &[&str],
    values: &mut [Option<String>],
) -> Result<(), Malformed> {
    let mut reader = Reader { rest: json };
    reader.expect('{')?;
    if reader.take('}') {
        return reader.end();
    }
    loop {
        let name = reader.text()?;
        reader.expect(':')?;
        let value = reader.text()?;
        let (_, slot) = names
            .iter()
            .zip(values.iter_mut())
            .find(|(known, _)| **known == name)
            .ok_or(Malformed::UnknownMember)?;
        if slot.replace(value).is_some() {
            return Err(Malformed::DuplicateMember);
        }
        if !reader.take(',') {
            reader.expect('}')?;
            return reader.end();
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// Skips white space, then `token` if it comes next.
    fn take(&mut self, token: char) -> bool {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: char) -> Result<(), Malformed> {
        if self.take(token) {
            Ok(())
        } else {
            Err(Malformed::Syntax)
        }
    }

    fn end(&mut self) -> Result<(), Malformed> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Syntax)
        }
    }

    /// Reads a JSON string.
    fn text(&mut self) -> Result<String, Malformed> {
        self.expect('"')?;
        let mut text = String::new();
        loop {
            let (plain, rest) = split_plain(self.rest);
            text.push_str(plain);
            self.rest = rest;
            match self.next_char()? {
                '"' => return Ok(text),
                '\\' => text.push(self.escaped()?),
                _ => return Err(Malformed::Syntax),
            }
        }
    }

    fn next_char(&mut self) -> Result<char, Malformed> {
        let mut chars = self.rest.chars();
        let next = chars.next().ok_or(Malformed::Syntax)?;
        self.rest = chars.as_str();
        Ok(next)
    }

    /// Reads what follows a backslash.
    fn escaped(&mut self) -> Result<char, Malformed> {
        match self.next_char()? {
            plain @ ('"' | '\\' | '/') => Ok(plain),
            'b' => Ok('\x08'),
            'f' => Ok('\x0C'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'u' => self.code_point(),
            _ => Err(Malformed::Syntax),
        }
    }

    /// Reads what follows `\u`. Characters beyond U+FFFF are two escapes, a surrogate pair.
    fn code_point(&mut self) -> Result<char, Malformed> {
        let first = self.four_digits()?;
        let code = match first {
            0xD800..=0xDBFF => {
                if self.next_char()? != '\\' || self.next_char()? != 'u' {
                    return Err(Malformed::Syntax);
                }
                let second = self.four_digits()?;
                if !(0xDC00..=0xDFFF).contains(&second) {
                    return Err(Malformed::Syntax);
                }
                0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)
            }
            other => other,
        };
        // Refuses what is left of the surrogates: a second half without a first.
        char::from_u32(code).ok_or(Malformed::Syntax)
    }

    fn four_digits(&mut self) -> Result<u32, Malformed> {
        let mut code = 0;
        for _ in 0..4 {
            code = code << 4 | self.next_char()?.to_digit(16).ok_or(Malformed::Syntax)?;
        }
        Ok(code)
    }
}

/// A JSON object being written.
pub struct Object {
    json: String,
}

impl Object {
    pub fn new() -> Self {
        Self {
            json: String::from("{"),
        }
    }

    #[must_use]
    pub fn text(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        push_text(&mut self.json, value);
        self
    }

    #[must_use]
    pub fn number(mut self, name: &str, value: u64) -> Self {
        self.name(name);
        push_number(&mut self.json, value);
        self
    }

    /// Adds a member whose value is JSON already.
    #[must_use]
    pub fn raw(mut self, name: &str, json: &str) -> Self {
        self.name(name);
        self.json.push_str(json);
        self
    }

    pub fn finish(mut self) -> String {
        self.json.push('}');
        self.json
    }

    fn name(&mut self, name: &str) {
        if self.json.len() > 1 {
            self.json.push(',');
        }
        push_text(&mut self.json, name);
        self.json.push(':');
    }
}

/// Writes values that are JSON already as an array.
pub fn array(values: impl Iterator<Item = String>) -> String {
    let mut json = String::from("[");
    for value in values {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&value);
    }
    json.push(']');
    json
}

/// A number in decimal. `format!` would do, and bring 10 KB of formatting code with it.
pub fn decimal(value: u64) -> String {
    let mut text = String::new();
    push_number(&mut text, value);
    text
}

fn push_number(out: &mut String, value: u64) {
    if value >= 10 {
        push_number(out, value / 10);
    }
    // A remainder of ten fits a byte.
    out.push(char::from(b'0' + (value % 10) as u8));
}

fn push_text(out: &mut String, text: &str) {
    out.push('"');
    let mut rest = text;
    loop {
        let (plain, special) = split_plain(rest);
        out.push_str(plain);
        let mut chars = special.chars();
        match chars.next() {
            None => break,
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(control) => {
                out.push_str(if control < '\x10' { "\\u000" } else { "\\u001" });
                out.extend(char::from_digit(u32::from(control) & 15, 16));
            }
        }
        rest = chars.as_str();
    }
    out.push('"');
}

/// Splits before the first character that a JSON string can't hold as it is, so that all others are
/// copied a run at a time.
fn split_plain(text: &str) -> (&str, &str) {
    let special = |byte: u8| matches!(byte, b'"' | b'\\' | 0..=0x1F);
    let end = text.bytes().position(special).unwrap_or(text.len());
    // Such a character is one byte, so the split never falls inside another.
    text.split_at_checked(end).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn title(json: &str) -> Result<Option<String>, Malformed> {
        read_texts(json, ["title"]).map(|[title]| title)
    }

    #[test]
    fn members_are_found_by_name_in_any_order() {
        let json = " {\n\t\"text\" : \"t\" ,\r\n \"title\":\"T\" } ";
        let [title, text, id] = read_texts(json, ["title", "text", "id"]).unwrap();
        assert_eq!(title.as_deref(), Some("T"));
        assert_eq!(text.as_deref(), Some("t"));
        assert_eq!(id, None);
    }

    #[test]
    fn an_empty_object_has_no_members() {
        assert_eq!(title("{}"), Ok(None));
        assert_eq!(title("{ }"), Ok(None));
    }

    #[test]
    fn escapes_are_read() {
        let escaped = r#"{"title":"\"\\\/\b\f\n\r\t\u0041\u00fc\uD83D\uDE00"}"#;
        assert_eq!(
            title(escaped),
            Ok(Some("\"\\/\x08\x0C\n\r\tAü😀".to_owned()))
        );
    }

    #[test]
    fn what_is_not_an_object_of_texts_is_refused() {
        for json in [
            "",
            "{",
            "[]",
            "\"title\"",
            "{\"title\"}",
            "{\"title\":1}",
            "{\"title\":null}",
            "{\"title\":\"a\",}",
            "{,}",
            "{\"title\":\"a\"} x",
            "{\"title\":\"a\"}{",
            "{\"title\":\"a",
            "{\"title\":\"a\nb\"}",
            "{\"title\":\"\\x\"}",
            "{\"title\":\"\\u12\"}",
            "{\"title\":\"\\u+123\"}",
            "{\"title\":\"\\ud83d\"}",
            "{\"title\":\"\\ud83d\\u0041\"}",
            "{\"title\":\"\\udE00\"}",
        ] {
            assert_eq!(title(json), Err(Malformed::Syntax), "{json}");
        }
    }

    #[test]
    fn unknown_and_repeated_members_are_refused() {
        assert_eq!(title("{\"colour\":\"red\"}"), Err(Malformed::UnknownMember));
        assert_eq!(
            title("{\"title\":\"a\",\"title\":\"a\"}"),
            Err(Malformed::DuplicateMember)
        );
        assert_eq!(
            title("{\"title\":\"a\",\"\\u0074itle\":\"a\"}"),
            Err(Malformed::DuplicateMember)
        );
    }

    #[test]
    fn an_object_is_written_in_the_order_given() {
        let json = Object::new()
            .text("a", "x")
            .number("b", 0)
            .raw("c", "[true]")
            .finish();
        assert_eq!(json, r#"{"a":"x","b":0,"c":[true]}"#);
        assert_eq!(Object::new().finish(), "{}");
    }

    #[test]
    fn what_is_written_reads_back() {
        let every_low_character: String = ('\0'..'\u{300}').collect();
        for text in ["", "\"\\/", "grün ✓ 😀", &every_low_character] {
            let json = Object::new().text("title", text).finish();
            assert_eq!(title(&json), Ok(Some(text.to_owned())));
        }
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for value in [0, 9, 10, 1_000, u64::MAX] {
            assert_eq!(decimal(value), value.to_string());
        }
    }

    #[test]
    fn an_array_separates_its_values() {
        assert_eq!(array(std::iter::empty()), "[]");
        assert_eq!(
            array(["1".to_owned(), "{}".to_owned()].into_iter()),
            "[1,{}]"
        );
    }
}

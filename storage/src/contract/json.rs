//! JSON as text: checked, compacted, otherwise left as it was written.
//!
//! A parser that builds values would lose what the contract promises to keep (the order of members,
//! `1e5`, `-0`, forty digits), and `serde_json`'s `RawValue` lets lone surrogates and duplicate
//! members pass. So this is one pass over the text that copies every token and checks it on the way.
//! The grammar is RFC 8259's.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

/// A JSON text without white space between its tokens.
///
/// Free of duplicate members, U+0000 and lone surrogates, and nested at most 128 deep. Numbers may be
/// of any size, also beyond what a parser that makes values of them can hold. The size is the length
/// of this text in bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct JsonText(String);

/// Why a text is not accepted as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {offset}")]
pub struct JsonError {
    /// What is wrong.
    pub kind: JsonErrorKind,
    /// Where, in bytes from the start of the text as it was given.
    pub offset: usize,
}

/// What is wrong with a text that should be JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonErrorKind {
    /// Something else than the grammar allows here, the end of the text included.
    #[error("this is not JSON")]
    Syntax,
    /// Text after the value.
    #[error("there is more text after the value")]
    TrailingText,
    /// More than 128 arrays and objects within one another.
    #[error("nesting is deeper than 128")]
    TooDeep,
    /// Two members of one object with the same name, after escapes are resolved.
    #[error("a member occurs twice")]
    DuplicateMember,
    /// U+0000, which PostgreSQL cannot store.
    #[error("U+0000 is not allowed")]
    Nul,
    /// Half of a surrogate pair, which is no character.
    #[error("a lone surrogate is not allowed")]
    LoneSurrogate,
}

impl JsonText {
    /// The deepest nesting of arrays and objects.
    pub const MAX_DEPTH: usize = 128;

    /// Checks and compacts a text.
    pub fn parse(text: &str) -> Result<Self, JsonError> {
        let mut scanner = Scanner {
            text,
            at: 0,
            compact: String::new(),
            kept: 0,
        };
        scanner.skip_white_space();
        scanner.value(0)?;
        scanner.skip_white_space();
        if scanner.at < text.len() {
            return Err(scanner.error(JsonErrorKind::TrailingText));
        }
        Ok(Self(scanner.finish()))
    }

    /// `{}`, which metadata is when none was given.
    pub fn empty_object() -> Self {
        Self("{}".to_owned())
    }

    /// A text the backend read back; it was checked when it was written.
    pub(crate) fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// Whether the value is an object.
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }

    /// The compact text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The compact text, by value.
    pub fn into_string(self) -> String {
        self.0
    }

    /// The size that limits and quotas count, in bytes.
    pub fn size(&self) -> u64 {
        self.0.len() as u64
    }
}

/// Shows the size alone: values never go into logs.
impl fmt::Debug for JsonText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonText({} bytes)", self.0.len())
    }
}

/// The names of an object's members so far.
#[derive(Default)]
struct Members<'a> {
    /// Most objects have few, and comparing few is faster than hashing them.
    few: Vec<Cow<'a, str>>,
    /// All of them, once there are more.
    many: HashSet<Cow<'a, str>>,
}

impl<'a> Members<'a> {
    const FEW: usize = 16;

    /// Adds a name; false where it was there already.
    fn insert(&mut self, name: Cow<'a, str>) -> bool {
        if self.many.is_empty() && self.few.len() < Self::FEW {
            if self.few.is_empty() {
                self.few.reserve(Self::FEW);
            }
            let is_new = !self.few.contains(&name);
            self.few.push(name);
            return is_new;
        }
        self.many.extend(self.few.drain(..));
        self.many.insert(name)
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// What was read before `kept`, without the white space in it.
    compact: String,
    /// Where the text begins that is kept as it is but was not copied yet: in one piece, where there is
    /// no more white space.
    kept: usize,
}

impl<'a> Scanner<'a> {
    /// Reads one value that lies within `depth` arrays and objects.
    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.error(JsonErrorKind::Syntax)),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        self.open(depth)?;
        let mut members = Members::default();
        if self.closes(b'}') {
            return Ok(());
        }
        loop {
            let start = self.at;
            if !members.insert(self.string()?) {
                return Err(JsonError {
                    kind: JsonErrorKind::DuplicateMember,
                    offset: start,
                });
            }
            self.skip_white_space();
            self.token(b':')?;
            self.value(depth + 1)?;
            if !self.continues(b'}')? {
                return Ok(());
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        self.open(depth)?;
        if self.closes(b']') {
            return Ok(());
        }
        loop {
            self.value(depth + 1)?;
            if !self.continues(b']')? {
                return Ok(());
            }
        }
    }

    /// Takes the bracket that opens the container number `depth` + 1 from outside.
    fn open(&mut self, depth: usize) -> Result<(), JsonError> {
        if depth >= JsonText::MAX_DEPTH {
            return Err(self.error(JsonErrorKind::TooDeep));
        }
        self.at += 1;
        self.skip_white_space();
        Ok(())
    }

    fn closes(&mut self, bracket: u8) -> bool {
        let closes = self.peek() == Some(bracket);
        if closes {
            self.at += 1;
        }
        closes
    }

    /// After an element: true where a comma announces another one, false where the bracket closes.
    fn continues(&mut self, bracket: u8) -> Result<bool, JsonError> {
        self.skip_white_space();
        if self.closes(bracket) {
            return Ok(false);
        }
        self.token(b',')?;
        Ok(true)
    }

    /// Takes one byte of punctuation and the white space behind it.
    fn token(&mut self, byte: u8) -> Result<(), JsonError> {
        if self.peek() != Some(byte) {
            return Err(self.error(JsonErrorKind::Syntax));
        }
        self.at += 1;
        self.skip_white_space();
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<(), JsonError> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.error(JsonErrorKind::Syntax));
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.skip_if(|b| b == b'-');
        if !self.skip_if(|b| b == b'0') {
            self.digits()?;
        }
        if self.skip_if(|b| b == b'.') {
            self.digits()?;
        }
        if self.skip_if(|b| matches!(b, b'e' | b'E')) {
            self.skip_if(|b| matches!(b, b'+' | b'-'));
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        if !self.skip_if(|b| b.is_ascii_digit()) {
            return Err(self.error(JsonErrorKind::Syntax));
        }
        while self.skip_if(|b| b.is_ascii_digit()) {}
        Ok(())
    }

    /// Reads a string and returns what it means.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if !self.skip_if(|b| b == b'"') {
            return Err(self.error(JsonErrorKind::Syntax));
        }
        let mut meaning = Cow::Borrowed("");
        loop {
            let run = self.at;
            self.at += plain_run(self.rest());
            match &mut meaning {
                Cow::Borrowed("") => meaning = Cow::Borrowed(self.slice(run, self.at)),
                _ => meaning.to_mut().push_str(self.slice(run, self.at)),
            }
            match self.peek() {
                Some(b'"') => break self.at += 1,
                Some(b'\\') => meaning.to_mut().push(self.escape()?),
                Some(0) => return Err(self.error(JsonErrorKind::Nul)),
                _ => return Err(self.error(JsonErrorKind::Syntax)),
            }
        }
        Ok(meaning)
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let start = self.at;
        let lone = JsonError {
            kind: JsonErrorKind::LoneSurrogate,
            offset: start,
        };
        let character = match self.rest().get(1) {
            Some(b'u') => {
                let first = self.code_unit()?;
                match first {
                    0 => {
                        return Err(JsonError {
                            kind: JsonErrorKind::Nul,
                            offset: start,
                        });
                    }
                    0xD800..=0xDBFF if self.rest().starts_with(b"\\u") => {
                        let second = self.code_unit()?;
                        if !(0xDC00..=0xDFFF).contains(&second) {
                            return Err(lone);
                        }
                        let pair = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                        return char::from_u32(pair).ok_or(lone);
                    }
                    _ => return char::from_u32(first).ok_or(lone),
                }
            }
            Some(escaped @ (b'"' | b'\\' | b'/')) => char::from(*escaped),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            _ => return Err(self.error(JsonErrorKind::Syntax)),
        };
        self.at += 2;
        Ok(character)
    }

    /// Reads `\uXXXX`.
    fn code_unit(&mut self) -> Result<u32, JsonError> {
        let digits = self
            .rest()
            .get(2..6)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| self.error(JsonErrorKind::Syntax))?;
        self.at += 6;
        Ok(digits)
    }

    fn skip_white_space(&mut self) {
        let start = self.at;
        while self.skip_if(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {}
        if self.at > start {
            self.compact.push_str(self.slice(self.kept, start));
            self.kept = self.at;
        }
    }

    /// The text without the white space between its tokens.
    fn finish(mut self) -> String {
        self.compact.push_str(self.slice(self.kept, self.at));
        self.compact
    }

    fn skip_if(&mut self, wanted: impl Fn(u8) -> bool) -> bool {
        let skips = self.peek().is_some_and(wanted);
        self.at += usize::from(skips);
        skips
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn slice(&self, from: usize, to: usize) -> &'a str {
        self.text
            .get(from..to)
            .expect("every token begins and ends with an ASCII character or at a token's edge")
    }

    fn error(&self, kind: JsonErrorKind) -> JsonError {
        JsonError {
            kind,
            offset: self.at,
        }
    }
}

/// How many bytes there are before the first that ends a string or means something in it.
///
/// Looks at eight at once, by the test for a zero byte in a word that is known as Mycroft's: its lowest hit
/// is always right.
fn plain_run(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xFF;
    const HIGH: u64 = ONES << 7;
    const fn each(byte: u8) -> u64 {
        ONES * byte as u64
    }
    const fn below(word: u64, least: u8) -> u64 {
        word.wrapping_sub(each(least)) & !word & HIGH
    }
    let (words, rest) = text.as_chunks();
    let mut plain = 0;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let special =
            below(word ^ each(b'"'), 1) | below(word ^ each(b'\\'), 1) | below(word, 0x20);
        if special != 0 {
            return plain + special.trailing_zeros() as usize / 8;
        }
        plain += 8;
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1F);
    plain + rest.iter().take_while(|byte| !is_special(byte)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_ends_at_the_first_byte_that_is_not_plain_wherever_it_is() {
        for byte in 0..=u8::MAX {
            let is_special = matches!(byte, b'"' | b'\\' | 0..=0x1F);
            for length in 0..20 {
                for at in 0..length {
                    for filling in [b'a', b' ', 0x7F, 0x80, 0xA2, 0xDC, 0xFF] {
                        let mut text = vec![filling; length];
                        text[at] = byte;
                        let expected = if is_special { at } else { length };
                        assert_eq!(plain_run(&text), expected, "{byte} at {at} of {length}");
                    }
                }
            }
        }
    }

    fn kind(text: &str) -> JsonErrorKind {
        JsonText::parse(text).unwrap_err().kind
    }

    #[test]
    fn tokens_stay_as_they_were_written() {
        let cases = [
            ("null", "null"),
            (
                " \t\r\n{ \"b\" : 1 ,\n\"a\" : [ 1e5 , -0 , 1E+05 ] } ",
                "{\"b\":1,\"a\":[1e5,-0,1E+05]}",
            ),
            (
                r#""a \u00e9 \/ \" \\ é 日本 \ud83d\ude00""#,
                r#""a \u00e9 \/ \" \\ é 日本 \ud83d\ude00""#,
            ),
            ("1e100000", "1e100000"),
            (
                "1234567890123456789012345678901234567890",
                "1234567890123456789012345678901234567890",
            ),
            ("[ ]", "[]"),
            ("{ }", "{}"),
        ];
        for (text, compact) in cases {
            assert_eq!(JsonText::parse(text).unwrap().as_str(), compact);
        }
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "nul",
            "nullx",
            "True",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "1e+",
            "+1",
            "NaN",
            "0x1",
            "'a'",
            "\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\\u+123\"",
            "\"a\nb\"",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "{,}",
            "[",
            "{",
            "[}",
            "{]",
            "\u{feff}1",
            "\u{a0}1",
            "/**/1",
        ] {
            let error = JsonText::parse(text).unwrap_err();
            assert!(
                matches!(
                    error.kind,
                    JsonErrorKind::Syntax | JsonErrorKind::TrailingText
                ),
                "{text:?}: {error}"
            );
        }
        assert_eq!(
            JsonText::parse("1 2").unwrap_err(),
            JsonError {
                kind: JsonErrorKind::TrailingText,
                offset: 2
            }
        );
    }

    #[test]
    fn duplicate_members_are_refused_however_they_are_spelled() {
        assert_eq!(kind(r#"{"a":1,"a":2}"#), JsonErrorKind::DuplicateMember);
        assert_eq!(
            kind(r#"{"a":1,"\u0061":2}"#),
            JsonErrorKind::DuplicateMember
        );
        assert_eq!(
            kind(r#"{"x\n":1,"x\u000a":2}"#),
            JsonErrorKind::DuplicateMember
        );
        assert_eq!(
            kind(r#"{"😀":1,"\ud83d\ude00":2}"#),
            JsonErrorKind::DuplicateMember
        );
        assert_eq!(kind(r#"[{"":1,"":2}]"#), JsonErrorKind::DuplicateMember);
        assert!(JsonText::parse(r#"{"a":{"a":1},"A":2}"#).is_ok());
    }

    #[test]
    fn what_a_database_cannot_hold_is_refused() {
        assert_eq!(kind("\"a\\u0000\""), JsonErrorKind::Nul);
        assert_eq!(kind("\"a\0\""), JsonErrorKind::Nul);
        for text in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#""\ud800\u0041""#,
            r#""\ud800x""#,
            r#""\udbff\n""#,
        ] {
            assert_eq!(kind(text), JsonErrorKind::LoneSurrogate, "{text}");
        }
        assert!(JsonText::parse(r#""\ud800\udc00\udbff\udfff""#).is_ok());
    }

    #[test]
    fn nesting_is_allowed_to_128_and_no_deeper() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        for depth in [127, 128] {
            assert!(JsonText::parse(&nested(depth)).is_ok());
            assert!(JsonText::parse(&objects(depth)).is_ok());
        }
        assert_eq!(kind(&nested(129)), JsonErrorKind::TooDeep);
        assert_eq!(kind(&objects(129)), JsonErrorKind::TooDeep);
        assert_eq!(kind(&"[".repeat(1_000_000)), JsonErrorKind::TooDeep);
    }

    #[test]
    fn a_value_does_not_show_itself_in_debug_output() {
        assert_eq!(
            format!("{:?}", JsonText::parse("\"hunter2\"").unwrap()),
            "JsonText(9 bytes)"
        );
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>()
                .prop_filter("finite", |f| f.is_finite())
                .prop_map(Into::into),
            "[^\0]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(6, 40, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                proptest::collection::btree_map("[^\0]{0,4}", inner, 0..5).prop_map(|members| {
                    members
                        .into_iter()
                        .collect::<serde_json::Map<_, _>>()
                        .into()
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn serialized_values_are_accepted_and_compacted(value in json()) {
            let compact = serde_json::to_string(&value).unwrap();
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let parsed = JsonText::parse(&pretty).unwrap();
            prop_assert_eq!(parsed.as_str(), compact.as_str());
        }

        #[test]
        fn whatever_is_accepted_is_json_to_others_too(text in r#"[\[\]{}",:\\ 0-9a-fu.eE+\-ntrsl]{0,24}"#) {
            if let Ok(compact) = JsonText::parse(&text) {
                let theirs: Result<Box<serde_json::value::RawValue>, _> = serde_json::from_str(&text);
                prop_assert!(theirs.is_ok(), "{}", text);
                prop_assert_eq!(JsonText::parse(compact.as_str()).unwrap(), compact);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = JsonText::parse(&text);
        }
    }
}

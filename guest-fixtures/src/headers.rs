//! Guests that answer with headers that a test chooses.

use super::given_headers;

/// Where the headers lie.
const HEAP: u32 = 1024;
const PAGE_BYTES: u32 = 64 * 1024;

/// Answers 200 with `count` headers of different names.
pub fn many_headers(count: usize) -> Vec<u8> {
    let names: Vec<_> = (0..count).map(|i| format!("x-{i:04}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    answer_with(&headers)
}

/// Answers 200 with these headers, whatever it was asked. They must fit into a page of memory.
pub fn answer_with(headers: &[(&str, &str)]) -> Vec<u8> {
    let parts = || headers.iter().flat_map(|(name, value)| [*name, *value]);
    let text: String = parts().collect();
    let entries = HEAP + length(text.len().next_multiple_of(4));
    let end = entries + length(headers.len() * 16);
    assert!(end <= PAGE_BYTES, "the headers need more than a page");
    let mut address = HEAP;
    let mut list = Vec::new();
    for part in parts() {
        list.extend(address.to_le_bytes());
        list.extend(length(part.len()).to_le_bytes());
        address += length(part.len());
    }
    given_headers(
        literal(text.as_bytes()),
        entries,
        literal(&list),
        headers.len(),
        end,
    )
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a guest is small")
}

/// Bytes as WebAssembly text writes them.
fn literal(bytes: &[u8]) -> String {
    let escaped = bytes.iter().map(|byte| format!("\\{byte:02x}"));
    format!("\"{}\"", escaped.collect::<String>())
}

//! Settings of the log.

use super::kind::{LogFilter, OneOf, Presence};
use super::setting::section;

/// How log events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// As text on a terminal, as JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

section! {
    /// What is logged and how. The log goes to standard error.
    pub struct LogConfig {
        /// How events are written; `auto` is `text` on a terminal and `json` elsewhere.
        format: LogFormat = LogFormat::Auto, "log.format": OneOf(&[
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
        ]);
        /// Which events are written: a level, or levels by module, separated by commas.
        filter: String = "info".to_owned(), "log.filter": LogFilter;
        /// Whether text has no colours on a terminal either.
        no_color: bool = false, "log.no_color" or "NO_COLOR": Presence;
    }
}

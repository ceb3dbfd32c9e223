//! How people see what an install does.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};

use uuid::Uuid;

use crate::activity::LineLevel;
use crate::admin::{GapBody, InvocationBody, LineBody, LogEvent};
use crate::config::Config;

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const GREEN: &str = "\x1b[32m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// Whether there are colours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    colours: bool,
}

impl Style {
    /// Colours where a person looks at them and doesn't mind.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            colours: io::stdout().is_terminal() && !config.log.no_color,
        }
    }

    /// One line.
    pub(super) fn event(self, event: &LogEvent) -> String {
        match event {
            LogEvent::Line(line) => self.line(line),
            LogEvent::Invocation(invocation) => self.invocation(invocation),
            LogEvent::Gap(GapBody { missed: None }) => {
                "… what happened before this may be missing".to_owned()
            }
            LogEvent::Gap(GapBody {
                missed: Some(missed),
            }) => format!("… {missed} lines or invocations are missing"),
            LogEvent::End(_) => String::new(),
        }
    }

    fn line(self, line: &LineBody) -> String {
        let (label, colour) = match line.level {
            LineLevel::Trace => ("TRACE", DIM),
            LineLevel::Debug => ("DEBUG", DIM),
            LineLevel::Info => ("INFO", PLAIN),
            LineLevel::Warn => ("WARN", YELLOW),
            LineLevel::Error => ("ERROR", RED),
        };
        format!(
            "{} {} {} {:<6} {}",
            line.time,
            self.short(line.invocation_id),
            self.painted(label, colour),
            visible(&line.source),
            visible(&line.message)
        )
    }

    fn invocation(self, invocation: &InvocationBody) -> String {
        let (label, colour) = if invocation.is_failed() {
            ("FAIL", RED)
        } else {
            ("DONE", GREEN)
        };
        let mut text = format!(
            "{} {} {} {:<6}",
            invocation.time,
            self.short(invocation.invocation_id),
            self.painted(label, colour),
            visible(&invocation.outcome)
        );
        let mut add = |what: std::fmt::Arguments<'_>| {
            write!(text, " {what}").expect("writing to a String cannot fail");
        };
        if let Some(status) = invocation.status {
            add(format_args!("status={status}"));
        }
        add(format_args!("duration={}ms", invocation.duration_ms));
        if let Some(bytes) = invocation.memory_bytes {
            add(format_args!("memory={}", memory(bytes)));
        }
        if let Some(calls) = invocation.host_calls {
            add(format_args!("host_calls={calls}"));
        }
        add(format_args!("lines={}", invocation.log_lines));
        if invocation.dropped_lines > 0 {
            add(format_args!("dropped={}", invocation.dropped_lines));
        }
        add(format_args!("version={}", visible(&invocation.version)));
        add(format_args!("invocation={}", invocation.invocation_id));
        add(format_args!("request={}", visible(&invocation.request_id)));
        text
    }

    /// The end of an id, which tells the invocations of a moment apart; its beginning is the time.
    fn short(self, id: Uuid) -> String {
        let id = id.simple().to_string();
        let end = id.get(id.len() - 8..).unwrap_or(&id);
        self.painted(end, DIM)
    }

    /// At least five wide.
    fn painted(self, text: &str, colour: &str) -> String {
        if self.colours {
            format!("{colour}{text:<5}{PLAIN}")
        } else {
            format!("{text:<5}")
        }
    }
}

/// Bytes as people read them.
pub(super) fn memory(bytes: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    if bytes < MIB {
        format!("{}KiB", bytes.div_ceil(KIB))
    } else {
        let tenths = bytes.saturating_mul(10).div_ceil(MIB);
        format!("{}.{}MiB", tenths / 10, tenths % 10)
    }
}

/// Text that can't move the cursor of the terminal, wherever it comes from.
pub(super) fn visible(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            seen.extend(character.escape_default());
        } else {
            seen.push(character);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use alga_model::Timestamp;

    use super::*;

    fn line(message: &str) -> LogEvent {
        LogEvent::Line(LineBody {
            time: Timestamp::from_millis(0),
            level: LineLevel::Warn,
            source: "log".to_owned(),
            message: message.to_owned(),
            invocation_id: Uuid::from_u128(0x1234_5678),
            request_id: "req-1".to_owned(),
            version: "1.0.0".to_owned(),
        })
    }

    fn invocation(outcome: &str) -> LogEvent {
        LogEvent::Invocation(InvocationBody {
            invocation_id: Uuid::from_u128(0x1234_5678),
            request_id: "req-1".to_owned(),
            time: Timestamp::from_millis(0),
            outcome: outcome.to_owned(),
            status: (outcome == "OK").then_some(201),
            duration_ms: 12,
            memory_bytes: Some(65_536),
            host_calls: None,
            log_lines: 3,
            dropped_lines: 1,
            version: "1.0.0".to_owned(),
        })
    }

    #[test]
    fn events_stand_below_one_another() {
        let plain = Style { colours: false };
        let rest = "duration=12ms memory=64KiB lines=3 dropped=1 version=1.0.0 \
                    invocation=00000000-0000-0000-0000-000012345678 request=req-1";
        assert_eq!(
            plain.event(&line("careful")),
            "1970-01-01T00:00:00.000Z 12345678 WARN  log    careful"
        );
        assert_eq!(
            plain.event(&invocation("OK")),
            format!("1970-01-01T00:00:00.000Z 12345678 DONE  OK     status=201 {rest}")
        );
        assert_eq!(
            plain.event(&invocation("GUEST_TRAP")),
            format!("1970-01-01T00:00:00.000Z 12345678 FAIL  GUEST_TRAP {rest}")
        );
    }

    #[test]
    fn nothing_but_our_own_colours_reaches_a_terminal() {
        let hostile = line("\u{1b}[2J\u{9b}\r\n");
        let plain = Style { colours: false };
        assert!(!plain.event(&hostile).contains(char::is_control));
        let coloured = Style { colours: true }.event(&hostile);
        let without = coloured
            .replace(YELLOW, "")
            .replace(DIM, "")
            .replace(PLAIN, "");
        assert_eq!(without, plain.event(&hostile));
    }

    #[test]
    fn memory_is_rounded_up() {
        for (bytes, expected) in [
            (0, "0KiB"),
            (1, "1KiB"),
            (65_536, "64KiB"),
            ((1 << 20) - 1, "1024KiB"),
            (1 << 20, "1.0MiB"),
            ((1 << 20) + 1, "1.1MiB"),
        ] {
            assert_eq!(memory(bytes), expected);
        }
    }
}

//! `alga:extension/logging`: log lines of the guest's own.

use tracing::Level;

use crate::bindings::alga::extension::logging::{Host, Level as GuestLevel};
use crate::ctx::HostCtx;
use crate::log::LogSource;

impl Host for HostCtx {
    fn log(&mut self, level: GuestLevel, message: String) {
        let level = match level {
            GuestLevel::Trace => Level::TRACE,
            GuestLevel::Debug => Level::DEBUG,
            GuestLevel::Info => Level::INFO,
            GuestLevel::Warn => Level::WARN,
            GuestLevel::Error => Level::ERROR,
        };
        self.log.line(level, LogSource::Logging, &message);
    }
}

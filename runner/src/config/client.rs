//! Settings of commands that ask a server instead of the data folder.

use std::path::PathBuf;

use alga_model::Secret;

use super::kind::{Kind, MASK, Optional, Path, Raw, toml_text};
use super::setting::section;

section! {
    /// Whom the commands of administration ask. The server itself takes no notice.
    pub struct ClientConfig {
        /// The server that commands of administration ask; without one, they work on the data folder.
        server: Option<String> = None, "client.server" or "ALGA_SERVER": Optional(ServerUrl);
        /// The file of the certificates, as PEM, that vouch for a server at https instead of those of the
        /// system.
        server_ca: Option<PathBuf> = None, "client.server_ca" or "ALGA_SERVER_CA": Optional(Path);
        /// The administrator's token for that server.
        token: Option<Secret<String>> = None, "client.token" or "ALGA_TOKEN": Optional(TokenText);
        /// The file of that token, which others must not be able to read. Stronger than the token.
        token_file: Option<PathBuf> = None, "client.token_file" or "ALGA_TOKEN_FILE": Optional(Path);
    }
}

/// The address of a server.
pub(super) struct ServerUrl;

impl Kind for ServerUrl {
    type Value = String;

    fn parse(&self, raw: &Raw) -> Result<String, Vec<String>> {
        let fine = |text: &&str| {
            let rest = text.strip_prefix("http://");
            let rest = rest.or_else(|| text.strip_prefix("https://"));
            rest.is_some_and(|rest| {
                !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['@', '?', '#'])
            })
        };
        self.expect_value(raw.as_text().filter(fine).map(str::to_owned))
    }

    fn show(&self, value: &String) -> Option<String> {
        Some(toml_text(value))
    }

    fn expects(&self) -> String {
        "a URL such as https://runner.example or http://127.0.0.1:7410".into()
    }
}

/// A token as a client presents it.
pub(super) struct TokenText;

impl Kind for TokenText {
    type Value = Secret<String>;

    fn parse(&self, raw: &Raw) -> Result<Self::Value, Vec<String>> {
        let fine = |text: &&str| text.bytes().all(|byte| byte.is_ascii_graphic());
        let text = raw.as_text().map(str::trim).filter(|text| !text.is_empty());
        self.expect_value(text.filter(fine).map(|text| Secret::new(text.to_owned())))
    }

    fn show(&self, _: &Self::Value) -> Option<String> {
        Some(MASK.into())
    }

    fn expects(&self) -> String {
        "visible ASCII characters".into()
    }
}

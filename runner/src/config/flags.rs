//! Settings that may be given on the command line.

use super::reader::FlagValue;

/// The flags that go before everything else that is configured.
///
/// Values are read as those of the environment are, so that a mistake in one is reported together
/// with all others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The address to listen on.
    pub listen: Option<String>,

    /// What the process does.
    pub role: Option<String>,

    /// The data folder.
    pub data_dir: Option<String>,

    /// Whether everything is allowed without a token.
    pub insecure_dev: bool,

    /// The server that commands ask.
    pub server: Option<String>,

    /// The file of the certificates that vouch for it.
    pub server_ca: Option<String>,

    /// The file of the token for it.
    pub token_file: Option<String>,

    /// The format of the log.
    pub log_format: Option<String>,

    /// The filter of the log.
    pub log_filter: Option<String>,
}

impl Overrides {
    pub(super) fn into_values(self) -> Vec<FlagValue> {
        let insecure_dev = self.insecure_dev.then(|| true.to_string());
        [
            ("server.listen", "--listen", self.listen),
            ("server.role", "--role", self.role),
            ("data_dir", "--data-dir", self.data_dir),
            ("server.insecure_dev", "--insecure-dev", insecure_dev),
            ("client.server", "--server", self.server),
            ("client.server_ca", "--server-ca", self.server_ca),
            ("client.token_file", "--token-file", self.token_file),
            ("log.format", "--log-format", self.log_format),
            ("log.filter", "--log-filter", self.log_filter),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| value.map(|value| FlagValue { key, flag, value }))
        .collect()
    }
}

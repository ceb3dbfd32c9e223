//! `alga-runner install create`.

use std::path::PathBuf;

use alga_model::{ExtensionName, TenantId};
use clap::Args;

use super::grant;
use crate::admin::{Administration, Ask, CreateInstall, CreateInstallBody};
use crate::cli::output;

#[derive(Debug, Args)]
pub(in crate::cli) struct Create {
    /// The tenant
    #[arg(long, value_name = "UUID")]
    tenant: TenantId,
    /// The extension's name
    #[arg(long, value_name = "NAME")]
    extension: ExtensionName,
    /// The version; the highest one if not given
    #[arg(long)]
    version: Option<String>,
    /// Grant what this JSON file says instead, in the shape of the manifest's capabilities
    #[arg(long, value_name = "FILE")]
    grants: Option<PathBuf>,
    /// A setting of the install; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = name_and_value)]
    settings: Vec<(String, String)>,
}

impl Create {
    /// Prints the id of the install.
    pub(super) async fn run(self, admin: &Administration) -> anyhow::Result<()> {
        let new = CreateInstallBody {
            tenant_id: self.tenant,
            extension: self.extension,
            version: self.version,
            grants: self.grants.as_deref().map(grant::read).transpose()?,
            config: self.settings.into_iter().collect(),
            allow_envelope_config: false,
            limits: None,
        };
        let install = admin.ask(Ask::<CreateInstall>::with((), new)).await?;
        output::note(format_args!(
            "installed {} {}",
            install.extension, install.version
        ));
        grant::note(&install.grants);
        output::line(install.install_id)?;
        Ok(())
    }
}

pub(in crate::cli) fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

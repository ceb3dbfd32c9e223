//! Who a presented token is.

use std::fmt;
use std::path::{Path, PathBuf};

use alga_model::{InstallId, Secret, TenantId};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::config::secret_file::{random, read_or_create};
use crate::config::{Config, DataConfig, SecretFileError, TokenConfig, TokenScope, own_ids};

/// The tokens that the server accepts. It keeps their digests only.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    known: Vec<(TokenDigest, Token)>,
    made: Option<TokenFiles>,
}

/// Who a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What stands for the token in logs and in the audit.
    pub id: String,
    /// What its bearer is.
    pub role: Role,
    scope: TokenScope,
}

/// What the bearer of a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The gateway or another service.
    Service,
    /// An administrator.
    Admin,
}

/// The files of the tokens that are made where none is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFiles {
    /// Holds the service token.
    pub service: PathBuf,
    /// Holds the administrator's token.
    pub admin: PathBuf,
}

/// Why there are no tokens.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A file of a token can't be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// The file of a token is empty.
    #[error("cannot use the token in {}: the file is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl Tokens {
    /// The configured tokens; where there is none, those in the data folder, which are made if
    /// they are missing. None at all in the insecure mode.
    pub fn open(config: &Config) -> Result<Self, TokenError> {
        let auth = &config.auth;
        if config.server.insecure_dev {
            return Ok(Self::default());
        }
        if auth.service_tokens.is_empty() && auth.admin_tokens.is_empty() {
            return Self::open_embedded(&config.data);
        }
        let services = known(&auth.service_tokens, Role::Service);
        let admins = known(&auth.admin_tokens, Role::Admin);
        Ok(Self {
            known: services.chain(admins).collect(),
            made: None,
        })
    }

    fn open_embedded(data: &DataConfig) -> Result<Self, TokenError> {
        let files = TokenFiles {
            service: data.service_token(),
            admin: data.admin_token(),
        };
        Ok(Self {
            known: vec![
                embedded(&files.service, own_ids::LOCAL_SERVICE, Role::Service)?,
                embedded(&files.admin, own_ids::LOCAL_ADMIN, Role::Admin)?,
            ],
            made: Some(files),
        })
    }

    /// Where the accepted tokens are, if they are those in the data folder.
    pub const fn files(&self) -> Option<&TokenFiles> {
        self.made.as_ref()
    }

    /// The token that was presented, if it is one that is accepted. How long that takes tells
    /// nothing about the tokens.
    pub fn authenticate(&self, presented: &str) -> Option<&Token> {
        let presented = TokenDigest::of(presented);
        let mut found = None;
        for (digest, token) in &self.known {
            if digest.is(presented) {
                found = Some(token);
            }
        }
        found
    }
}

impl Token {
    /// Whether the token is good for an install of a tenant.
    pub fn allows(&self, tenant: TenantId, install: InstallId) -> bool {
        self.scope.allows(tenant, install)
    }

    /// A token that is good for everything.
    #[cfg(test)]
    pub(crate) fn for_test(id: &str, role: Role) -> Self {
        Self {
            id: id.to_owned(),
            role,
            scope: TokenScope::default(),
        }
    }

    /// What the token is good for.
    pub const fn scope(&self) -> &TokenScope {
        &self.scope
    }

    /// Whether the token is good for everything that its role may do.
    pub fn is_unlimited(&self) -> bool {
        self.scope == TokenScope::default()
    }
}

/// The SHA-256 of a token. Tokens are random, so there is nothing to guess from it, and digests
/// can be compared without telling the length of what they stand for.
#[derive(Clone, Copy)]
struct TokenDigest([u8; 32]);

impl TokenDigest {
    fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Whether it is another one; how long that takes tells nothing about either.
    fn is(self, other: Self) -> bool {
        let ([one, two], [other_one, other_two]) = (self.halves(), other.halves());
        (one.ct_eq(&other_one) & two.ct_eq(&other_two)).into()
    }

    /// Two numbers are compared sooner than 32 bytes.
    fn halves(self) -> [u128; 2] {
        let (halves, _) = self.0.as_chunks();
        [0, 1].map(|half| halves.get(half).copied().map_or(0, u128::from_ne_bytes))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn known(tokens: &[TokenConfig], role: Role) -> impl Iterator<Item = (TokenDigest, Token)> {
    tokens.iter().map(move |token| {
        let digest = TokenDigest::of(token.token.expose());
        let token = Token {
            id: token.id.clone(),
            role,
            scope: token.scope.clone(),
        };
        (digest, token)
    })
}

fn embedded(path: &Path, id: &str, role: Role) -> Result<(TokenDigest, Token), TokenError> {
    let text = read_or_create(path, || {
        Ok(Secret::new(
            URL_SAFE_NO_PAD.encode(random()?.expose()) + "\n",
        ))
    })?;
    let token = text.expose().trim();
    if token.is_empty() {
        return Err(TokenError::Empty { path: path.into() });
    }
    let known = Token {
        id: id.to_owned(),
        role,
        scope: TokenScope::default(),
    };
    Ok((TokenDigest::of(token), known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AuthConfig;

    fn token(id: &str, text: &str, scope: TokenScope) -> TokenConfig {
        TokenConfig {
            id: id.to_owned(),
            token: Secret::new(text.to_owned()),
            scope,
        }
    }

    fn tokens(service: &[TokenConfig], admin: &[TokenConfig]) -> Tokens {
        let mut config = Config::default();
        config.auth = AuthConfig {
            service_tokens: service.to_vec(),
            admin_tokens: admin.to_vec(),
        };
        Tokens::open(&config).unwrap()
    }

    fn in_folder(folder: &Path) -> Config {
        let mut config = Config::default();
        config.data.dir = folder.to_owned();
        config
    }

    #[test]
    fn a_token_is_known_by_its_whole_text() {
        let all = TokenScope::default();
        let tokens = tokens(
            &[
                token("old", "0123456789abcdef", all.clone()),
                token("new", "fedcba9876543210", all.clone()),
            ],
            &[token("root", "0123456789abcdeg", all)],
        );
        let who = |text: &str| {
            tokens
                .authenticate(text)
                .map(|token| (token.id.as_str(), token.role))
        };
        assert_eq!(who("0123456789abcdef"), Some(("old", Role::Service)));
        assert_eq!(who("fedcba9876543210"), Some(("new", Role::Service)));
        assert_eq!(who("0123456789abcdeg"), Some(("root", Role::Admin)));
        for wrong in [
            "",
            "0123456789abcde",
            "0123456789abcdef ",
            "0123456789ABCDEF",
            "old",
        ] {
            assert_eq!(who(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_token_is_good_for_the_tenants_and_installs_of_its_scope() {
        let (tenant, install) = (TenantId::generate(), InstallId::generate());
        let (other_tenant, other_install) = (TenantId::generate(), InstallId::generate());
        let scoped = |tenants: Option<TenantId>, installs: Option<InstallId>| Token {
            id: "x".into(),
            role: Role::Service,
            scope: TokenScope {
                tenants: tenants.map(|tenant| [tenant].into()),
                installs: installs.map(|install| [install].into()),
            },
        };
        let all = scoped(None, None);
        assert!(all.allows(tenant, install) && all.is_unlimited());
        let one_tenant = scoped(Some(tenant), None);
        assert!(one_tenant.allows(tenant, install));
        assert!(!one_tenant.allows(other_tenant, install));
        assert!(!one_tenant.is_unlimited());
        let one_install = scoped(None, Some(install));
        assert!(one_install.allows(tenant, install));
        assert!(!one_install.allows(tenant, other_install));
        let both = scoped(Some(tenant), Some(install));
        assert!(both.allows(tenant, install));
        assert!(!both.allows(other_tenant, install) && !both.allows(tenant, other_install));
    }

    #[test]
    fn without_configured_tokens_one_of_each_role_is_made_and_then_kept() {
        let folder = tempfile::tempdir().unwrap();
        let config = in_folder(folder.path());
        let first = Tokens::open(&config).unwrap();
        let second = Tokens::open(&config).unwrap();
        let files = first.files().unwrap();
        for (path, role) in [(&files.service, Role::Service), (&files.admin, Role::Admin)] {
            let text = std::fs::read_to_string(path).unwrap();
            assert_eq!(text.trim().len(), 43);
            assert_eq!(first.authenticate(text.trim()).unwrap().role, role);
            assert_eq!(second.authenticate(text.trim()).unwrap().role, role);
        }
    }

    #[test]
    fn an_empty_token_file_lets_nobody_in() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let config = in_folder(folder.path());
        let path = config.data.service_token();
        std::fs::write(&path, "\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(
            Tokens::open(&config),
            Err(TokenError::Empty { .. })
        ));
    }

    #[test]
    fn with_one_configured_token_or_in_the_insecure_mode_none_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let mut configured = in_folder(folder.path());
        configured.auth.admin_tokens =
            vec![token("root", "0123456789abcdef", TokenScope::default())];
        let mut insecure = in_folder(folder.path());
        insecure.server.insecure_dev = true;
        assert!(Tokens::open(&configured).unwrap().files().is_none());
        let none = Tokens::open(&insecure).unwrap();
        assert!(none.files().is_none() && none.authenticate("").is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn tokens_do_not_show_themselves() {
        let shown = format!(
            "{:?}",
            tokens(
                &[token("a", "0123456789abcdef", TokenScope::default())],
                &[]
            )
        );
        let digest = TokenDigest::of("0123456789abcdef").0[0].to_string();
        assert!(
            shown.contains("***") && !shown.contains("0123456789"),
            "{shown}"
        );
        assert!(!shown.contains(&format!("[{digest}, ")), "{shown}");
    }
}

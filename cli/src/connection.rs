//! Which cluster a command speaks to, and as whom: from flags, the environment, and a configuration
//! file, in that order.

use crate::client::{Client, ClientOptions, TlsOptions};
use crate::failure::Failure;
use crate::written::{self, flag};
use clap::Args;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a coordinator listens if nothing else is said.
pub const ENDPOINT_DEFAULT: &str = "127.0.0.1:7400";

/// Flags of the connection, the same for every command.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Coordinators, in order of preference
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORT,...",
        env = "MILLPOOL_ENDPOINTS",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub endpoints: Vec<String>,
    /// File with the certificates to trust, PEM; turns TLS on, without which no token leaves this host
    #[arg(long, global = true, value_name = "FILE", env = "MILLPOOL_CA", hide_env_values = true)]
    pub ca: Option<PathBuf>,
    /// Name in the coordinators' certificates, where it is not their host
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "MILLPOOL_TLS_SERVER_NAME",
        hide_env_values = true
    )]
    pub tls_server_name: Option<String>,
    /// File with the bearer token (or the token itself in MILLPOOL_TOKEN)
    #[arg(long, global = true, value_name = "FILE", env = "MILLPOOL_TOKEN_FILE", hide_env_values = true)]
    pub token_file: Option<PathBuf>,
    /// Longest that a call may take, over all its attempts
    #[arg(long, global = true, value_name = "DURATION", value_parser = flag(written::duration_s))]
    pub timeout: Option<u32>,
    /// Configuration file [default: millpool/config.toml in the user's configuration folder]
    #[arg(long, global = true, value_name = "FILE", env = "MILLPOOL_CLI_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,
}

/// The configuration file. Everything in it can be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    /// Coordinators, in order of preference.
    #[serde(default)]
    endpoints: Vec<String>,
    /// File with the certificates to trust.
    ca: Option<PathBuf>,
    /// Name in the coordinators' certificates.
    tls_server_name: Option<String>,
    /// File with the bearer token.
    token_file: Option<PathBuf>,
    /// Longest that a call may take.
    timeout: Option<String>,
}

/// What the environment says that no flag does.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The bearer token, `MILLPOOL_TOKEN`.
    pub token: Option<String>,
    /// The user's configuration folder.
    pub config_home: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process.
    pub fn read() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let home = set("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| Path::new(&home).join(".config")));
        let token = set("MILLPOOL_TOKEN").and_then(|token| token.into_string().ok());
        Self { token, config_home: home }
    }
}

impl ConnectionArgs {
    /// What a client is made of.
    pub fn options(&self, environment: &Environment) -> Result<ClientOptions, Failure> {
        let file = self.config_file(environment)?;
        let mut options = ClientOptions { endpoints: self.endpoints.clone(), ..ClientOptions::default() };
        if options.endpoints.is_empty() {
            options.endpoints = file.endpoints;
        }
        if options.endpoints.is_empty() {
            options.endpoints = vec![ENDPOINT_DEFAULT.to_owned()];
        }
        if let Some(path) = self.ca.as_ref().or(file.ca.as_ref()) {
            let server_name = self.tls_server_name.clone().or(file.tls_server_name);
            options.tls = Some(TlsOptions { ca_pem: read("--ca", path)?.into_bytes(), server_name });
        }
        options.token = match (&self.token_file, &environment.token, &file.token_file) {
            (Some(path), _, _) | (None, None, Some(path)) => {
                Some(read("--token-file", path)?.trim().to_owned())
            }
            (None, Some(token), _) => Some(token.trim().to_owned()),
            (None, None, None) => None,
        };
        let of_file = file.timeout.as_deref().map(written::duration_s).transpose();
        let of_file = of_file.map_err(|accepted| format!("timeout in the configuration: {accepted}"))?;
        if let Some(seconds) = self.timeout.or(of_file) {
            options.deadline = Duration::from_secs(u64::from(seconds));
        }
        Ok(options)
    }

    /// A client, not yet connected.
    pub fn client(&self, environment: &Environment) -> Result<Client, Failure> {
        Ok(Client::new(self.options(environment)?)?)
    }

    fn config_file(&self, environment: &Environment) -> Result<ConfigFile, Failure> {
        let usual = environment.config_home.as_ref().map(|home| home.join("millpool/config.toml"));
        let path = match (&self.config, usual) {
            (Some(named), _) => named.clone(),
            (None, Some(usual)) if usual.exists() => usual,
            (None, _) => return Ok(ConfigFile::default()),
        };
        let text = read("--config", &path)?;
        Ok(toml::from_str(&text).map_err(|error| format!("{}: {}", path.display(), error))?)
    }
}

fn read(flag: &str, path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("{flag} {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_environment_and_that_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_path_buf();
        std::fs::create_dir(home.join("millpool")).unwrap();
        std::fs::write(home.join("from-file"), "file-token\n").unwrap();
        std::fs::write(home.join("from-flag"), "flag-token\n").unwrap();
        let config = format!(
            "endpoints = ['a:1', 'b:2']\ntimeout = '5s'\ntoken_file = '{}/from-file'\n",
            home.display()
        );
        std::fs::write(home.join("millpool/config.toml"), config).unwrap();

        let mut environment = Environment { token: None, config_home: Some(home.clone()) };
        let mut flags = ConnectionArgs::default();
        let options = flags.options(&environment).unwrap();
        assert_eq!(options.endpoints, ["a:1", "b:2"]);
        assert_eq!(options.deadline, Duration::from_secs(5));
        assert_eq!(options.token.as_deref(), Some("file-token"));

        environment.token = Some("env-token".to_owned());
        assert_eq!(flags.options(&environment).unwrap().token.as_deref(), Some("env-token"));

        flags.token_file = Some(home.join("from-flag"));
        flags.endpoints = vec!["c:3".to_owned()];
        flags.timeout = Some(7);
        let options = flags.options(&environment).unwrap();
        assert_eq!(options.token.as_deref(), Some("flag-token"));
        assert_eq!(options.endpoints, ["c:3"]);
        assert_eq!(options.deadline, Duration::from_secs(7));
    }

    #[test]
    fn without_anything_it_is_the_local_coordinator() {
        let options = ConnectionArgs::default().options(&Environment::default()).unwrap();
        assert_eq!(options.endpoints, [ENDPOINT_DEFAULT]);
        assert!(options.tls.is_none() && options.token.is_none());
    }

    #[tokio::test]
    async fn a_token_leaves_this_host_by_tls_only() {
        let environment = Environment { token: Some("mp_secret".to_owned()), config_home: None };
        let flags = |endpoints: &[&str]| ConnectionArgs {
            endpoints: endpoints.iter().map(|&at| at.to_owned()).collect(),
            ..Default::default()
        };
        let here =
            ["127.0.0.1:1", "127.8.0.1:1", "localhost:1", "LOCALHOST:1", "[::1]:1", "http://127.0.0.1:1/"];
        assert!(flags(&here).client(&environment).is_ok());

        for there in
            ["node1:7400", "http://node1:7400", "10.0.0.1:7400", "localhost.example:1", "[2001:db8::1]:1"]
        {
            let failure = flags(&["127.0.0.1:1", there]).client(&environment).unwrap_err();
            assert_eq!(failure.exit_code(), crate::failure::EXIT_USAGE, "{there}");
            for said in [there, "token", "MILLPOOL_CA", "127.0.0.1"] {
                assert!(failure.to_string().contains(said), "{failure}");
            }
            assert!(!failure.to_string().contains("mp_secret"), "{failure}");
            assert!(
                flags(&[there]).client(&Environment::default()).is_ok(),
                "without a token nothing is lost"
            );
        }
    }

    #[tokio::test]
    async fn nor_does_it_to_an_address_that_a_coordinator_names() {
        let environment = Environment { token: Some("mp_secret".to_owned()), config_home: None };
        let flags = ConnectionArgs { endpoints: vec!["127.0.0.1:1".to_owned()], ..Default::default() };
        let client = flags.client(&environment).unwrap();
        assert!(client.at("127.0.0.1:2").is_ok());
        assert!(client.at("node1:7400").is_err());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let flags =
            |endpoint: &str| ConnectionArgs { endpoints: vec![endpoint.to_owned()], ..Default::default() };
        for endpoint in ["", "host", "host:", ":7400", "host:99999", "https://host:7400", "a b:1"] {
            let failure = flags(endpoint).client(&Environment::default()).unwrap_err();
            assert_eq!(failure.exit_code(), crate::failure::EXIT_USAGE, "{endpoint}");
            assert!(failure.to_string().contains(&format!("'{endpoint}'")), "{failure}");
        }
    }
}

//! The agent's certificates for OPC UA: its own, made at the first start, and those of the servers that
//! the plant trusts.
//!
//! ```text
//! own/cert.der         show this one to each server; it has to trust it
//! private/private.pem  its key
//! trusted/             the servers' certificates that are trusted
//! rejected/            a server's certificate is put here when it is seen first: compare its thumbprint
//!                      with what the server shows, and move it to trusted/
//! ```

use opcua_crypto::{CertificateStore, X509Data};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How long the agent's own certificate is good, days: ten years, because a plant that must renew it does
/// so when it renews the agent.
const OWN_DAYS: u32 = 3_650;
/// Bits of the own key; Basic256Sha256 takes 2,048 to 4,096.
const KEY_BITS: u32 = 2_048;

/// The folder of certificates, with everything in it that a session needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pki {
    /// The folder.
    pub dir: PathBuf,
    /// The URI that the own certificate names.
    pub application_uri: String,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
#[error("OPC UA certificates in {dir}: {why}")]
pub struct PkiError {
    /// The folder.
    pub dir: PathBuf,
    /// Why not.
    pub why: String,
}

impl Pki {
    /// Opens the folder; makes it, and the agent's own certificate, where there is none. Takes about a
    /// second then.
    pub fn open(dir: &Path, agent: &str) -> Result<Self, PkiError> {
        let failed = |why: String| PkiError { dir: dir.to_owned(), why };
        let pki = Self { dir: dir.to_owned(), application_uri: format!("urn:millpool:node-agent:{agent}") };
        CertificateStore::new(dir).ensure_pki_path().map_err(failed)?;
        let (certificate, key) = (pki.certificate(), pki.key());
        if !certificate.exists() || !key.exists() {
            let names = X509Data::alt_host_names(&pki.application_uri, None, false, true, false);
            let data = X509Data {
                key_size: KEY_BITS,
                common_name: format!("Millpool node agent {agent}"),
                organization: "Millpool".to_owned(),
                organizational_unit: agent.to_owned(),
                country: String::new(),
                state: String::new(),
                alt_host_names: names,
                certificate_duration_days: OWN_DAYS,
            };
            CertificateStore::create_certificate_and_key(&data, true, &certificate, &key).map_err(failed)?;
            let only_ours = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&key, only_ours).map_err(|error| failed(error.to_string()))?;
            tracing::info!(certificate = %certificate.display(), "made the agent's OPC UA certificate; servers have to trust it");
        }
        Ok(pki)
    }

    /// The own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("own/cert.der")
    }

    /// The own key.
    pub fn key(&self) -> PathBuf {
        self.dir.join("private/private.pem")
    }

    /// Where servers' certificates are that nobody has trusted yet.
    pub fn rejected(&self) -> PathBuf {
        self.dir.join("rejected")
    }

    /// Where those are that are trusted.
    pub fn trusted(&self) -> PathBuf {
        self.dir.join("trusted")
    }
}

//! An authority, a certificate for each node, and the operator's token: what a cluster needs that is not on
//! loopback.

use anyhow::Context as _;
use millpool_demo::cluster::{NODES, Security, Site};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::fs;
use std::path::Path;

/// Makes everything anew in a folder. A node's certificate names its address.
pub(crate) fn issue(folder: &Path, sites: &[Site; NODES]) -> anyhow::Result<Security> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = params.self_signed(&key)?.pem();
    let authority = Issuer::new(params, key);
    fs::write(folder.join("ca.pem"), &ca_pem)?;
    for (index, site) in sites.iter().enumerate() {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![site.host.to_string()])?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let name = format!("node-{}", index + 1);
        fs::write(folder.join(format!("{name}.pem")), params.signed_by(&key, &authority)?.pem())?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    // For one run on this machine: whoever reads the folder may do as it likes with the cluster anyway.
    let operator_token = format!("{:064x}", rand::random::<u128>());
    fs::write(folder.join("operator.token"), &operator_token)?;
    Ok(Security { folder: folder.to_owned(), ca_pem, operator_token })
}

//! A network namespace for each node, joined by a bridge on which the clients are, too; and cuts between nodes.
//!
//! A cut is a rule of the packet filter inside a node's own namespace that drops what comes from another node, so
//! that it can be made in one direction alone. Clients reach every node all the time.

use crate::machine::{self, Need};
use millpool_demo::cluster::{NODES, Site};
use std::net::Ipv4Addr;

/// What a network needs.
pub(crate) const NEEDS: &[Need] =
    &[Need::Root, Need::Program("ip", "iproute2"), Need::Program("nft", "nftables")];

/// The bridge, with the clients' address on it. Names have at most 15 characters.
const BRIDGE: &str = "mp-faults";
const CLIENTS: &str = "10.213.77.254/24";
const TABLE: &str = "millpool_faults";

fn namespace(index: usize) -> String {
    format!("{BRIDGE}-{}", index + 1)
}

/// A node's end of its cable, and the bridge's.
fn cable(index: usize) -> [String; 2] {
    [format!("mp-node-{}", index + 1), format!("mp-port-{}", index + 1)]
}

fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, 77, index as u8 + 1)
}

fn ip(command: &str) -> anyhow::Result<()> {
    machine::run("ip", command.split(' '))
}

/// Runs a command of the packet filter in a node's namespace.
fn nft(index: usize, command: &str) -> anyhow::Result<()> {
    machine::run("ip", ["netns", "exec", &namespace(index), "nft", command])
}

/// The namespaces and the bridge. They go when this is dropped.
pub(crate) struct Network(());

impl Network {
    /// Makes them, and removes what a run has left that was killed.
    pub(crate) fn create() -> anyhow::Result<Self> {
        remove();
        let network = Self(());
        ip(&format!("link add {BRIDGE} type bridge"))?;
        ip(&format!("address add {CLIENTS} dev {BRIDGE}"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        for index in 0..NODES {
            join(index)?;
        }
        Ok(network)
    }

    /// Where a node stands that was to stand at `site`.
    pub(crate) fn place(&self, index: usize, site: &Site) -> Site {
        Site { host: address(index).into(), namespace: Some(namespace(index)), folder: site.folder.clone() }
    }

    /// From now on nothing gets from one node to another.
    pub(crate) fn cut(&self, from: usize, to: usize) -> anyhow::Result<()> {
        nft(to, &format!("add rule inet {TABLE} arriving ip saddr {} drop", address(from)))
    }

    /// Everything gets everywhere again.
    pub(crate) fn heal(&self) -> anyhow::Result<()> {
        (0..NODES).try_for_each(|index| nft(index, &format!("flush chain inet {TABLE} arriving")))
    }
}

/// Makes a node's namespace, and its cable to the bridge.
fn join(index: usize) -> anyhow::Result<()> {
    let (namespace, [near, far]) = (namespace(index), cable(index));
    ip(&format!("netns add {namespace}"))?;
    ip(&format!("link add {far} type veth peer name {near} netns {namespace}"))?;
    ip(&format!("link set {far} master {BRIDGE} up"))?;
    ip(&format!("-n {namespace} link set lo up"))?;
    ip(&format!("-n {namespace} address add {}/24 dev {near}", address(index)))?;
    ip(&format!("-n {namespace} link set {near} up"))?;
    nft(index, &format!("add table inet {TABLE}"))?;
    nft(index, &format!("add chain inet {TABLE} arriving {{ type filter hook input priority 0; }}"))
}

/// Removes whatever is there. What is not there cannot be removed, which is as good.
fn remove() {
    for index in 0..NODES {
        let _ = ip(&format!("netns delete {}", namespace(index)));
        let _ = ip(&format!("link delete {}", cable(index)[1]));
    }
    let _ = ip(&format!("link delete {BRIDGE}"));
}

impl Drop for Network {
    fn drop(&mut self) {
        remove();
    }
}

//! Who buys: small firms with made-up names.

/// Ids of the demo's buyers.
pub const BUYERS: [&str; 16] = [
    "avocet", "bunting", "crane", "dunlin", "egret", "finch", "godwit", "heron", "ibis", "jacana", "kestrel",
    "lapwing", "martin", "osprey", "plover", "wagtail",
];

//! What a Sparkplug message carries: metrics with names or aliases, and a sequence number.
//!
//! The field numbers are those of `sparkplug_b.proto` in the Sparkplug 3.0.0 specification. Only what the
//! agent reads is here; data sets, templates and whatever comes later are skipped. A message is counted
//! before it is taken apart: a megabyte of empty metrics would otherwise become a hundred.

use bytes::Bytes;
use prost::Message;

/// Largest message that is taken, bytes; the broker is told, and sends none that is larger.
pub const PACKET_BYTES_MAX: u32 = 1 << 20;
/// Most metrics in a message.
pub const METRICS_MAX: usize = 10_000;
/// Most properties of a metric that are looked at.
const PROPERTIES_MAX: usize = 64;

/// The data type of a 64-bit whole number.
pub const INT64: u32 = 4;
/// The data type of a 32-bit whole number without a sign.
pub const UINT32: u32 = 7;
/// The data type of a time, ms since the Unix epoch.
pub const DATETIME: u32 = 13;
/// The data type of a boolean metric.
pub const BOOLEAN: u32 = 11;
/// The data type of a text metric.
pub const STRING: u32 = 12;
/// The data type of a 64-bit whole number without a sign.
pub const UINT64: u32 = 8;

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no Sparkplug payload.
    #[error("it is no Sparkplug payload: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// It has too many metrics.
    #[error("it has {0} metrics; accepted are {METRICS_MAX}")]
    TooMany(usize),
}

/// A message's content.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Payload {
    /// When it was sent, ms since the Unix epoch.
    pub timestamp_ms: Option<u64>,
    /// Its place in the edge node's sequence, 0 to 255.
    pub seq: Option<u64>,
    /// What it says.
    pub metrics: Vec<Metric>,
}

/// A payload whose metrics are still bytes.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(uint64, optional, tag = "1")]
    timestamp: Option<u64>,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    metrics: Vec<Bytes>,
    #[prost(uint64, optional, tag = "3")]
    seq: Option<u64>,
}

/// One value, under a name or an alias.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Its name; data after a birth may leave it out.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// The number that stands for the name, given in the birth.
    #[prost(uint64, optional, tag = "2")]
    pub alias: Option<u64>,
    /// When the value was so, ms since the Unix epoch.
    #[prost(uint64, optional, tag = "3")]
    pub timestamp: Option<u64>,
    /// Its data type; data after a birth may leave it out.
    #[prost(uint32, optional, tag = "4")]
    pub datatype: Option<u32>,
    /// It was so once, and is told late.
    #[prost(bool, optional, tag = "5")]
    pub is_historical: Option<bool>,
    /// There is no value.
    #[prost(bool, optional, tag = "7")]
    pub is_null: Option<bool>,
    /// What else is said of it: unit, quality.
    #[prost(message, optional, tag = "9")]
    pub properties: Option<Properties>,
    /// The value.
    #[prost(oneof = "Content", tags = "10, 11, 12, 13, 14, 15")]
    pub content: Option<Content>,
}

/// A metric's value, as it is on the wire. Whole numbers are two's complement of their data type.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Content {
    /// Up to 32 bits.
    #[prost(uint32, tag = "10")]
    Int(u32),
    /// 64 bits, or a time.
    #[prost(uint64, tag = "11")]
    Long(u64),
    /// 32 bits.
    #[prost(float, tag = "12")]
    Float(f32),
    /// 64 bits.
    #[prost(double, tag = "13")]
    Double(f64),
    /// Yes or no.
    #[prost(bool, tag = "14")]
    Boolean(bool),
    /// Words.
    #[prost(string, tag = "15")]
    Text(String),
}

/// A metric's properties: names, and a value for each.
#[derive(Clone, PartialEq, Message)]
pub struct Properties {
    /// The names.
    #[prost(string, repeated, tag = "1")]
    pub keys: Vec<String>,
    /// The values, in the same order.
    #[prost(message, repeated, tag = "2")]
    pub values: Vec<Property>,
}

/// A property's value, as far as it is read.
#[derive(Clone, PartialEq, Message)]
pub struct Property {
    /// A whole number.
    #[prost(uint32, optional, tag = "3")]
    pub int: Option<u32>,
    /// Words.
    #[prost(string, optional, tag = "8")]
    pub text: Option<String>,
}

impl Payload {
    /// Reads a message.
    pub fn read(bytes: Bytes) -> Result<Self, Unreadable> {
        let envelope = Envelope::decode(bytes)?;
        if envelope.metrics.len() > METRICS_MAX {
            return Err(Unreadable::TooMany(envelope.metrics.len()));
        }
        let metrics = envelope.metrics.into_iter().map(Metric::decode).collect::<Result<_, _>>()?;
        Ok(Self { timestamp_ms: envelope.timestamp, seq: envelope.seq, metrics })
    }

    /// Writes a message.
    pub fn write(&self) -> Vec<u8> {
        let metrics = self.metrics.iter().map(|metric| metric.encode_to_vec().into()).collect();
        Envelope { timestamp: self.timestamp_ms, metrics, seq: self.seq }.encode_to_vec()
    }

    /// The metric of this name.
    pub fn metric(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name.as_deref() == Some(name))
    }
}

impl Metric {
    /// A metric of this name and value.
    pub fn named(name: &str, datatype: u32, content: Content) -> Self {
        let (name, datatype) = (Some(name.to_owned()), Some(datatype));
        Self { name, datatype, content: Some(content), ..Self::default() }
    }

    /// A property's value.
    pub fn property(&self, key: &str) -> Option<&Property> {
        let properties = self.properties.as_ref()?;
        let at = properties.keys.iter().take(PROPERTIES_MAX).position(|known| known == key)?;
        properties.values.get(at)
    }

    /// Its value as a whole number without a sign.
    pub fn whole(&self) -> Option<u64> {
        match self.content.as_ref()? {
            Content::Int(number) => Some((*number).into()),
            Content::Long(number) => Some(*number),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by hand from the specification's field numbers, so that writer and reader are not wrong alike.
    #[test]
    fn a_payload_is_read_by_the_specifications_numbers_and_what_is_not_known_is_skipped() {
        let metric: &[u8] = &[
            0x0a, 1, b'S', // name 1
            0x10, 7, // alias 2
            0x18, 9, // timestamp 3
            0x20, 3, // datatype 4
            0x30, 1, // is_transient 6
            0x42, 2, 0x08, 1, // metadata 8
            0x4a, 12, 0x0a, 7, b'Q', b'u', b'a', b'l', b'i', b't', b'y', 0x12, 1,
            0x08, // properties 9: broken
        ];
        // A metric that breaks off is malformed as a whole.
        let payload = |metric: &[u8]| {
            let mut bytes = vec![0x08, 5, 0x12, metric.len() as u8];
            bytes.extend(metric);
            bytes.extend([0x18, 255, 1, 0x22, 1, b'u', 0x2a, 1, 0]);
            Payload::read(bytes.into())
        };
        assert!(matches!(payload(metric), Err(Unreadable::Malformed(_))));
        let mut whole = metric[..metric.len() - 14].to_vec();
        whole.extend([0x4a, 14, 0x0a, 7, b'Q', b'u', b'a', b'l', b'i', b't', b'y', 0x12, 3, 0x18, 192, 1]);
        whole.extend([0x50, 42]); // int_value 10
        let read = payload(&whole).unwrap();
        assert_eq!((read.timestamp_ms, read.seq), (Some(5), Some(255)));
        let metric = read.metric("S").unwrap();
        assert_eq!((metric.alias, metric.timestamp, metric.datatype), (Some(7), Some(9), Some(3)));
        assert_eq!(metric.content, Some(Content::Int(42)));
        assert_eq!(metric.property("Quality").and_then(|quality| quality.int), Some(192));
        assert_eq!(Payload::read(read.write().into()).unwrap(), read);
    }

    /// What pysparkplug writes of a metric with a unit, and a sequence number of 0.
    #[test]
    fn a_payload_of_another_make_is_read() {
        let metric = b"\x0a\x01S\x10\x01\x20\x03\x4a\x11\x0a\x07engUnit\x12\x06\x08\x0c\x42\x02kW\x50\xfe\xff\xff\xff\x0f";
        let bytes = [b"\x08\x05\x12\x20", &metric[..], b"\x18\x00"].concat();
        let read = Payload::read(bytes.into()).unwrap();
        assert_eq!((read.timestamp_ms, read.seq), (Some(5), Some(0)));
        let metric = &read.metrics[0];
        assert_eq!((metric.name.as_deref(), metric.alias, metric.datatype), (Some("S"), Some(1), Some(3)));
        assert_eq!(metric.content, Some(Content::Int(u32::MAX - 1)));
        assert_eq!(metric.property("engUnit").and_then(|unit| unit.text.as_deref()), Some("kW"));
    }

    #[test]
    fn a_message_of_nothing_but_metrics_is_refused_before_it_is_taken_apart() {
        let bytes = [0x12, 0].repeat(METRICS_MAX + 1);
        assert!(matches!(Payload::read(bytes.into()), Err(Unreadable::TooMany(10_001))));
        assert!(Payload::read([0x12, 0].repeat(METRICS_MAX).into()).is_ok());
    }
}

//! MTConnect's three documents, read with limits: Devices (probe), Streams (current, sample), Error.
//!
//! Names are compared without their namespace prefix, so that every version and vendor extension is read
//! alike. What is not understood is passed over; what is malformed, too deep or too large is refused. No
//! document, however made, makes anything here panic.

use crate::adapter::cut;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::reader::Reader;
use std::borrow::Cow;

/// Largest document that is read, bytes.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Deepest nesting of elements.
pub const DEPTH_MAX: usize = 64;
/// Most data items of a device.
pub const ITEMS_MAX: usize = 20_000;
/// Most observations taken from one document.
pub const OBSERVATIONS_MAX: usize = 500_000;
/// An observation's value is cut off here, bytes.
pub const VALUE_BYTES_MAX: usize = 4096;

/// Why a document cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not XML, or not MTConnect.
    #[error("malformed MTConnect document: {0}")]
    Malformed(String),
    /// Over a limit.
    #[error("MTConnect document over a limit: {0}")]
    TooLarge(String),
}

/// A machine as the probe describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its universal identity.
    pub uuid: String,
    /// Its id in the document.
    pub id: String,
    /// Manufacturer, model and serial number, as far as they are given.
    pub description: String,
    /// What it reports.
    pub items: Vec<DataItem>,
}

/// A data item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataItem {
    /// Its id, which observations refer to.
    pub id: String,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// `SAMPLE`, `EVENT` or `CONDITION`.
    pub category: String,
    /// E.g. `EXECUTION`.
    pub kind: String,
    /// E.g. `ACTUAL`.
    pub sub_type: Option<String>,
    /// E.g. `PERCENT`.
    pub units: Option<String>,
    /// The component that has it, e.g. `Path`.
    pub component: String,
    /// That component's name or id.
    pub component_name: String,
}

/// The head of a Streams document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Changes when the MTConnect agent restarts.
    pub instance_id: u64,
    /// First number in its buffer.
    pub first_seq: u64,
    /// Where to go on reading.
    pub next_seq: u64,
    /// The MTConnect agent's clock, ms since the Unix epoch, if it says.
    pub created_ms: Option<i64>,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Its number.
    pub seq: u64,
    /// Which data item.
    pub item_id: String,
    /// When, ms since the Unix epoch.
    pub at_ms: i64,
    /// What.
    pub seen: Seen,
}

/// What an observation says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A sample's or event's value.
    Value(String),
    /// A condition's level.
    Condition {
        /// E.g. `Fault`.
        level: Level,
        /// The controller's own code; empty where there is none.
        native_code: String,
        /// In words.
        text: String,
    },
}

/// A condition's level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Nobody knows.
    Unavailable,
    /// All is well.
    Normal,
    /// Somebody should look.
    Warning,
    /// It cannot go on.
    Fault,
}

/// A document that a current or sample is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Observations of the wanted items, in the order of their numbers.
    Streams(Header, Vec<Observation>),
    /// A refusal.
    Error {
        /// E.g. `OUT_OF_RANGE`.
        code: String,
        /// In words.
        text: String,
    },
}

/// What [`walk`] comes upon.
enum Node<'a, 'b> {
    Open(Tag<'a, 'b>),
    Text(Cow<'a, str>),
    Close,
}

struct Tag<'a, 'b>(&'a BytesStart<'b>);

impl Tag<'_, '_> {
    fn name(&self) -> &str {
        let whole = self.0.name().0;
        whole.rsplit_once(':').map_or(whole, |(_, local)| local)
    }

    fn get(&self, name: &str) -> Result<Option<String>, DocumentError> {
        let found = self.0.try_get_attribute(name).map_err(|error| malformed(&error))?;
        let value =
            found.map(|attribute| attribute.normalized_value(XmlVersion::Implicit1_0).map(Cow::into_owned));
        value.transpose().map_err(|error| malformed(&error))
    }

    fn need(&self, name: &str) -> Result<String, DocumentError> {
        let missing = || DocumentError::Malformed(format!("<{}> has no {name}", self.name()));
        self.get(name)?.ok_or_else(missing)
    }

    fn number(&self, name: &str) -> Result<u64, DocumentError> {
        let text = self.need(name)?;
        let not_a_number =
            || DocumentError::Malformed(format!("<{}> {name}={text:?} is not a number", self.name()));
        text.trim().parse().map_err(|_| not_a_number())
    }
}

fn malformed(error: &dyn std::fmt::Display) -> DocumentError {
    DocumentError::Malformed(cut(&error.to_string(), 300).to_owned())
}

/// Visits every element and text. `visit` also learns how many elements are open.
fn walk(
    document: &str,
    mut visit: impl FnMut(Node<'_, '_>, usize) -> Result<(), DocumentError>,
) -> Result<(), DocumentError> {
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(DocumentError::TooLarge(format!(
            "{} bytes, at most {DOCUMENT_BYTES_MAX}",
            document.len()
        )));
    }
    let mut reader = Reader::from_str(document);
    let mut depth = 0;
    loop {
        match reader.read_event().map_err(|error| malformed(&error))? {
            Event::Start(start) => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(DocumentError::TooLarge(format!("more than {DEPTH_MAX} elements deep")));
                }
                visit(Node::Open(Tag(&start)), depth)?;
            }
            Event::Empty(start) => {
                visit(Node::Open(Tag(&start)), depth + 1)?;
                visit(Node::Close, depth)?;
            }
            Event::End(_) => {
                depth = depth.saturating_sub(1);
                visit(Node::Close, depth)?;
            }
            Event::Text(text) => visit(Node::Text(text.xml_content(XmlVersion::Implicit1_0)), depth)?,
            Event::CData(text) => visit(Node::Text(Cow::Borrowed(&*text)), depth)?,
            Event::GeneralRef(reference) => {
                let character = reference.resolve_char_ref().map_err(|error| malformed(&error))?;
                let text = match character {
                    Some(character) => Cow::Owned(character.to_string()),
                    None => quick_xml::escape::resolve_predefined_entity(&reference)
                        .map(Cow::Borrowed)
                        .ok_or_else(|| {
                            DocumentError::Malformed("an entity that XML does not define".to_owned())
                        })?,
                };
                visit(Node::Text(text), depth)?;
            }
            Event::Eof if depth > 0 => {
                return Err(DocumentError::Malformed("it ends in the middle".to_owned()));
            }
            Event::Eof => return Ok(()),
            Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => {}
        }
    }
}

/// Reads a Devices document.
pub fn devices(document: &str) -> Result<Vec<Device>, DocumentError> {
    let mut devices: Vec<Device> = Vec::new();
    let mut open: Vec<(String, String)> = Vec::new();
    let mut recognised = false;
    walk(document, |node, _| {
        match node {
            Node::Open(tag) => {
                let name = tag.name().to_owned();
                match name.as_str() {
                    "MTConnectDevices" => recognised = true,
                    "Device" => devices.push(device(&tag)?),
                    "Description" if open.last().is_some_and(|(parent, _)| parent == "Device") => {
                        let words = [tag.get("manufacturer")?, tag.get("model")?, tag.get("serialNumber")?];
                        let words: Vec<_> = words.into_iter().flatten().collect();
                        if let Some(device) = devices.last_mut() {
                            device.description = words.join(" ");
                        }
                    }
                    "DataItem" => {
                        let outside =
                            || DocumentError::Malformed("a DataItem stands outside a Device".to_owned());
                        let device = devices.last_mut().ok_or_else(outside)?;
                        if device.items.len() >= ITEMS_MAX {
                            return Err(DocumentError::TooLarge(format!("more than {ITEMS_MAX} data items")));
                        }
                        device.items.push(data_item(&tag, &open)?);
                    }
                    _ => {}
                }
                let label = tag.get("name")?.or(tag.get("id")?).unwrap_or_default();
                open.push((name, label));
            }
            Node::Text(_) => {}
            Node::Close => {
                open.pop();
            }
        }
        Ok(())
    })?;
    if !recognised {
        return Err(DocumentError::Malformed("it is not an MTConnectDevices document".to_owned()));
    }
    Ok(devices)
}

fn device(tag: &Tag<'_, '_>) -> Result<Device, DocumentError> {
    Ok(Device {
        name: tag.get("name")?.unwrap_or_default(),
        uuid: tag.get("uuid")?.unwrap_or_default(),
        id: tag.get("id")?.unwrap_or_default(),
        ..Device::default()
    })
}

fn data_item(tag: &Tag<'_, '_>, open: &[(String, String)]) -> Result<DataItem, DocumentError> {
    let holder = open.iter().rev().find(|(name, _)| name != "DataItems").cloned().unwrap_or_default();
    Ok(DataItem {
        id: tag.need("id")?,
        name: tag.get("name")?,
        category: tag.need("category")?,
        kind: tag.need("type")?,
        sub_type: tag.get("subType")?,
        units: tag.get("units")?,
        component: holder.0,
        component_name: holder.1,
    })
}

/// Reads a Streams or Error document, and keeps the observations of the items that are `wanted`.
pub fn streams(document: &str, wanted: impl Fn(&str) -> bool) -> Result<Document, DocumentError> {
    let mut reading = Reading::default();
    walk(document, |node, depth| reading.visit(node, depth, &wanted))?;
    reading.finish()
}

/// A Streams or Error document, half read.
#[derive(Default)]
struct Reading {
    header: Option<Header>,
    error: Option<(String, String)>,
    is_streams: bool,
    observations: Vec<Observation>,
    /// The observation whose text is read, and the depth of its element.
    open: Option<(Observation, usize)>,
    in_error: bool,
}

impl Reading {
    fn visit(
        &mut self,
        node: Node<'_, '_>,
        depth: usize,
        wanted: &impl Fn(&str) -> bool,
    ) -> Result<(), DocumentError> {
        match node {
            Node::Open(tag) => self.open(&tag, depth, wanted),
            Node::Text(text) => {
                self.text(&text, depth);
                Ok(())
            }
            Node::Close => {
                self.in_error = false;
                if self.open.as_ref().is_some_and(|(_, opened)| depth < *opened) {
                    self.observations.extend(self.open.take().map(|(observation, _)| observation));
                }
                Ok(())
            }
        }
    }

    fn open(
        &mut self,
        tag: &Tag<'_, '_>,
        depth: usize,
        wanted: &impl Fn(&str) -> bool,
    ) -> Result<(), DocumentError> {
        if self.open.is_some() {
            return Ok(());
        }
        match tag.name() {
            "MTConnectStreams" => self.is_streams = true,
            "Header" if self.is_streams => self.header = Some(header(tag)?),
            "Error" => {
                self.error = Some((tag.need("errorCode")?, String::new()));
                self.in_error = true;
            }
            name => {
                if let Some(item_id) = tag.get("dataItemId")?.filter(|item_id| wanted(item_id)) {
                    if self.observations.len() >= OBSERVATIONS_MAX {
                        let what = format!("more than {OBSERVATIONS_MAX} observations");
                        return Err(DocumentError::TooLarge(what));
                    }
                    self.open = Some((observation(tag, name, item_id)?, depth));
                }
            }
        }
        Ok(())
    }

    fn text(&mut self, more: &str, depth: usize) {
        let into = match (&mut self.open, &mut self.error) {
            (Some((observation, opened)), _) if depth == *opened => match &mut observation.seen {
                Seen::Value(value) => value,
                Seen::Condition { text, .. } => text,
            },
            (None, Some((_, text))) if self.in_error => text,
            _ => return,
        };
        let room = VALUE_BYTES_MAX.saturating_sub(into.len());
        into.push_str(cut(more, room));
    }

    fn finish(mut self) -> Result<Document, DocumentError> {
        if let Some((code, text)) = self.error {
            return Ok(Document::Error { code, text: text.trim().to_owned() });
        }
        let header = self.header.filter(|_| self.is_streams);
        let header = header
            .ok_or_else(|| DocumentError::Malformed("it is not an MTConnectStreams document".to_owned()))?;
        self.observations.sort_by_key(|observation| observation.seq);
        Ok(Document::Streams(header, self.observations))
    }
}

fn header(tag: &Tag<'_, '_>) -> Result<Header, DocumentError> {
    Ok(Header {
        instance_id: tag.number("instanceId")?,
        first_seq: tag.number("firstSequence")?,
        next_seq: tag.number("nextSequence")?,
        created_ms: tag.get("creationTime")?.and_then(|text| instant_ms(&text)),
    })
}

fn observation(tag: &Tag<'_, '_>, name: &str, item_id: String) -> Result<Observation, DocumentError> {
    let stamp = tag.need("timestamp")?;
    let not_a_time = || DocumentError::Malformed(format!("timestamp {stamp:?} is not a time"));
    let level = match name {
        "Unavailable" => Some(Level::Unavailable),
        "Normal" => Some(Level::Normal),
        "Warning" => Some(Level::Warning),
        "Fault" => Some(Level::Fault),
        _ => None,
    };
    let seen = match level {
        Some(level) => {
            let native_code = tag.get("nativeCode")?.unwrap_or_default();
            Seen::Condition { level, native_code, text: String::new() }
        }
        None => Seen::Value(String::new()),
    };
    Ok(Observation {
        seq: tag.number("sequence")?,
        item_id,
        at_ms: instant_ms(&stamp).ok_or_else(not_a_time)?,
        seen,
    })
}

/// A time stamp; one without a zone counts as UTC, as MTConnect has it.
pub fn instant_ms(text: &str) -> Option<i64> {
    let text = text.trim();
    let zoned = text.parse::<jiff::Timestamp>();
    let stamp = zoned.or_else(|_| format!("{text}Z").parse::<jiff::Timestamp>());
    stamp.ok().map(jiff::Timestamp::as_millisecond)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"<Header creationTime="2020-01-01T00:00:00Z" instanceId="7" firstSequence="1"
        nextSequence="9" lastSequence="8" bufferSize="100"/>"#;

    fn read(body: &str) -> Result<Document, DocumentError> {
        let document = format!(
            r#"<?xml version="1.0"?><m:MTConnectStreams xmlns:m="urn:x">{HEADER}<Streams>{body}</Streams></m:MTConnectStreams>"#
        );
        streams(&document, |id| id != "unwanted")
    }

    #[test]
    fn observations_come_in_the_order_of_their_numbers() {
        let document = read(
            r#"<Events><Program dataItemId="p" timestamp="2020-01-01T00:00:01.5" sequence="5">A &amp; B&#33;</Program>
            <x:Move xmlns:x="urn:y" dataItemId="unwanted" timestamp="?" sequence="?"/></Events>
            <Condition><Fault dataItemId="c" timestamp="2020-01-01T00:00:00.25Z" sequence="3" nativeCode="70"><![CDATA[FEED < 0]]></Fault></Condition>"#,
        );
        let Ok(Document::Streams(header, seen)) = document else { panic!("{document:?}") };
        assert_eq!((header.instance_id, header.next_seq), (7, 9));
        let fault =
            Seen::Condition { level: Level::Fault, native_code: "70".into(), text: "FEED < 0".into() };
        assert_eq!(seen[0].seen, fault);
        assert_eq!(seen[1].seen, Seen::Value("A & B!".into()));
        assert_eq!(seen[1].at_ms - seen[0].at_ms, 1250);
    }

    #[test]
    fn a_refusal_is_read_with_its_code() {
        let document = r#"<MTConnectError><Header instanceId="1"/><Errors><Error errorCode="OUT_OF_RANGE">from</Error></Errors></MTConnectError>"#;
        let error = Document::Error { code: "OUT_OF_RANGE".into(), text: "from".into() };
        assert_eq!(streams(document, |_| true), Ok(error));
    }

    #[test]
    fn nesting_has_a_limit() {
        let deep = format!("{}{}", "<a>".repeat(DEPTH_MAX + 1), "</a>".repeat(DEPTH_MAX + 1));
        assert!(matches!(read(&deep), Err(DocumentError::TooLarge(_))));
    }

    #[test]
    fn what_is_not_mtconnect_is_refused() {
        for text in [
            "",
            "hello",
            "<html></html>",
            "<MTConnectStreams>",
            "<a b=c>",
            "<MTConnectStreams><Header/>",
            "&x;",
        ] {
            assert!(matches!(streams(text, |_| true), Err(DocumentError::Malformed(_))), "{text}");
            assert!(devices(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,400}") {
            let _ = streams(&text, |_| true);
            let _ = devices(&text);
        }

        #[test]
        fn no_damaged_document_makes_the_reader_panic(at in 0_usize..600, byte in 0_u8..128) {
            let mut text = format!(
                r#"<MTConnectStreams>{HEADER}<Streams><Events><Execution dataItemId="e" timestamp="2020-01-01T00:00:01Z" sequence="5">ACTIVE</Execution></Events></Streams></MTConnectStreams>"#
            ).into_bytes();
            let at = at % text.len();
            text[at] = byte;
            let _ = streams(&String::from_utf8_lossy(&text), |_| true);
        }
    }
}

//! What a segment file holds, as bytes.
//!
//! A segment is a row of frames: `magic(4) length(4) checksum(4) payload`, little-endian, the checksum
//! CRC-32C over length and payload. A frame is what one fsync made durable, so it is there whole or not
//! at all. Its payload is a [`Group`], protobuf of our own, so that the format can grow.

use bytes::Bytes;
use millpool_proto::v1::AgentEvent;
use prost::Message;

/// Version of the format, in every segment's founding.
pub const FORMAT: u32 = 1;
/// Bytes before a frame's payload.
pub const FRAME_HEAD_BYTES: usize = 12;
/// Largest payload of a frame.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

const MAGIC: [u8; 4] = *b"MPO1";

/// One frame's payload.
#[derive(Clone, PartialEq, Message)]
pub struct Group {
    /// In the first frame of a segment, and only there.
    #[prost(message, optional, tag = "1")]
    pub founding: Option<Founding>,
    /// What was appended.
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<Entry>,
    /// Highest number acknowledged, where that is news; else 0.
    #[prost(uint64, tag = "3")]
    pub acked_seq: u64,
}

/// What a segment knows of those before it, so that they can be deleted.
#[derive(Clone, PartialEq, Message)]
pub struct Founding {
    /// [`FORMAT`].
    #[prost(uint32, tag = "1")]
    pub format: u32,
    /// The outbox's random identity.
    #[prost(string, tag = "2")]
    pub outbox_id: String,
    /// Sequence number of the first event in this segment.
    #[prost(uint64, tag = "3")]
    pub next_seq: u64,
    /// Highest number acknowledged when the segment began.
    #[prost(uint64, tag = "4")]
    pub acked_seq: u64,
    /// Every mark that stood when the segment began.
    #[prost(message, repeated, tag = "5")]
    pub marks: Vec<Mark>,
}

/// Events, and where the machine that made them stands after them: there together or not at all.
#[derive(Clone, PartialEq, Message)]
pub struct Entry {
    /// In order; their numbers are given when they are written.
    #[prost(message, repeated, tag = "1")]
    pub events: Vec<AgentEvent>,
    /// Replaces the mark of the same key.
    #[prost(message, optional, tag = "2")]
    pub mark: Option<Mark>,
}

/// A few bytes that a machine's adapter wants back after a restart.
#[derive(Clone, PartialEq, Message)]
pub struct Mark {
    /// Whose, e.g. the machine's id.
    #[prost(string, tag = "1")]
    pub key: String,
    /// What.
    #[prost(bytes = "bytes", tag = "2")]
    pub state: Bytes,
}

/// What stands at a place in a segment.
pub enum Frame {
    /// A whole frame, and the offset behind it.
    Whole(Box<Group>, usize),
    /// Nothing: the segment ends here.
    End,
    /// Not a frame.
    Broken(&'static str),
}

/// The frame of a group, or nothing if it is too large.
pub fn encode(group: &Group) -> Option<Vec<u8>> {
    let payload_bytes = group.encoded_len();
    if payload_bytes > FRAME_BYTES_MAX {
        return None;
    }
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + payload_bytes);
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&(payload_bytes as u32).to_le_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&group.encode_to_vec());
    let sum = checksum(&frame[4..8], &frame[FRAME_HEAD_BYTES..]);
    frame[8..12].copy_from_slice(&sum.to_le_bytes());
    Some(frame)
}

/// Reads the frame at `offset`.
pub fn decode(segment: &[u8], offset: usize) -> Frame {
    let rest = segment.get(offset..).unwrap_or_default();
    if rest.is_empty() {
        return Frame::End;
    }
    let Some((head, body)) = rest.split_first_chunk::<FRAME_HEAD_BYTES>() else {
        return Frame::Broken("a frame's head is cut short");
    };
    if head[..4] != MAGIC {
        return Frame::Broken("no frame begins here");
    }
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
    if length > FRAME_BYTES_MAX {
        return Frame::Broken("a frame is longer than any that is written");
    }
    let Some(payload) = body.get(..length) else {
        return Frame::Broken("a frame is cut short");
    };
    if checksum(&head[4..8], payload).to_le_bytes() != head[8..12] {
        return Frame::Broken("a frame's checksum does not match");
    }
    match Group::decode(payload) {
        Ok(group) => Frame::Whole(Box::new(group), offset + FRAME_HEAD_BYTES + length),
        Err(_) => Frame::Broken("a frame cannot be decoded"),
    }
}

/// Whether any whole frame begins after `offset`. What was written before the last fsync is followed by
/// nothing whole; so a broken frame with a whole one behind it is damage, not a torn tail.
pub fn whole_frame_after(segment: &[u8], offset: usize) -> bool {
    let mut at = offset + 1;
    while let Some(found) = segment.get(at..).and_then(|rest| find(rest, &MAGIC)) {
        if matches!(decode(segment, at + found), Frame::Whole(..)) {
            return true;
        }
        at += found + 1;
    }
    false
}

fn find(haystack: &[u8], needle: &[u8; 4]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn checksum(length: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(length), payload)
}

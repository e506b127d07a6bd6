//! The parts of a multipart/x-mixed-replace stream, from chunks cut anywhere.
//!
//! Every buffer has a limit; a stream that goes over one is refused, and the connection with it.

use super::document::DOCUMENT_BYTES_MAX;
use bytes::{Buf, Bytes, BytesMut};

/// Largest head of a part, bytes.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// Longest boundary, as RFC 2046 has it.
pub const BOUNDARY_BYTES_MAX: usize = 70;

/// Why a stream cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultipartError {
    /// The content type is not multipart, or names no boundary.
    #[error("not a multipart stream: content type {0:?}")]
    NotMultipart(String),
    /// Something has no end within its limit.
    #[error("a multipart stream over a limit: {what} is larger than {max} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its limit.
        max: usize,
    },
    /// A part's head cannot be understood.
    #[error("a multipart stream with a malformed head: {0}")]
    Malformed(String),
}

/// Where in the stream the reader is.
enum Place {
    BeforeBoundary,
    InHead,
    InBody {
        /// From the head's Content-Length, if it has one.
        length: Option<usize>,
        /// Bytes already searched for the boundary.
        searched: usize,
    },
}

/// A reader that is fed chunks.
pub struct Multipart {
    /// `--boundary`.
    delimiter: Vec<u8>,
    buffer: BytesMut,
    place: Place,
}

impl Multipart {
    /// For the boundary that a Content-Type header names.
    pub fn new(content_type: &str) -> Result<Self, MultipartError> {
        let not_multipart = || MultipartError::NotMultipart(content_type.chars().take(200).collect());
        let (kind, parameters) = content_type.split_once(';').ok_or_else(not_multipart)?;
        if !kind.trim().to_ascii_lowercase().starts_with("multipart/") {
            return Err(not_multipart());
        }
        let named = parameters.split(';').find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"'))
        });
        let boundary = named.filter(|boundary| (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()));
        let boundary = boundary.ok_or_else(not_multipart)?;
        let delimiter = format!("--{boundary}").into_bytes();
        Ok(Self { delimiter, buffer: BytesMut::new(), place: Place::BeforeBoundary })
    }

    /// Takes the next chunk.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole part, if it is here already.
    pub fn part(&mut self) -> Result<Option<Bytes>, MultipartError> {
        loop {
            match self.place {
                Place::BeforeBoundary => {
                    let Some(at) = find(&self.buffer, &self.delimiter) else {
                        return self.want("the space before a boundary", HEAD_BYTES_MAX);
                    };
                    self.buffer.advance(at + self.delimiter.len());
                    self.place = Place::InHead;
                }
                Place::InHead => {
                    let Some((end, body)) = head_end(&self.buffer) else {
                        return self.want("a part's head", HEAD_BYTES_MAX);
                    };
                    let length = content_length(&self.buffer[..end])?;
                    self.buffer.advance(body);
                    self.place = Place::InBody { length, searched: 0 };
                }
                Place::InBody { length: Some(length), .. } => {
                    if self.buffer.len() < length {
                        return Ok(None);
                    }
                    self.place = Place::BeforeBoundary;
                    return Ok(Some(self.buffer.split_to(length).freeze()));
                }
                Place::InBody { length: None, searched } => {
                    let Some(at) = find(&self.buffer[searched..], &self.delimiter) else {
                        let searched = self.buffer.len().saturating_sub(self.delimiter.len());
                        self.place = Place::InBody { length: None, searched };
                        return self.want("a part", DOCUMENT_BYTES_MAX);
                    };
                    self.place = Place::BeforeBoundary;
                    return Ok(Some(self.buffer.split_to(searched + at).freeze()));
                }
            }
        }
    }

    /// Nothing yet; refused if what is here already is too much.
    fn want(&self, what: &'static str, max: usize) -> Result<Option<Bytes>, MultipartError> {
        if self.buffer.len() > max { Err(MultipartError::TooLarge { what, max }) } else { Ok(None) }
    }
}

/// Where a head ends, and where the body behind it begins.
fn head_end(buffer: &[u8]) -> Option<(usize, usize)> {
    let strict = find(buffer, b"\r\n\r\n").map(|at| (at, at + 4));
    let loose = find(buffer, b"\n\n").map(|at| (at, at + 2));
    [strict, loose].into_iter().flatten().min()
}

fn content_length(head: &[u8]) -> Result<Option<usize>, MultipartError> {
    let head = String::from_utf8_lossy(head);
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut named = fields.filter(|(name, _)| name.trim().eq_ignore_ascii_case("content-length"));
    let Some((_, value)) = named.next_back() else { return Ok(None) };
    let malformed = |_| {
        MultipartError::Malformed(format!("Content-length {:?}", value.chars().take(40).collect::<String>()))
    };
    let length: usize = value.trim().parse().map_err(malformed)?;
    if length > DOCUMENT_BYTES_MAX {
        return Err(MultipartError::TooLarge { what: "a part", max: DOCUMENT_BYTES_MAX });
    }
    Ok(Some(length))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(stream: &[u8], cuts: &[usize]) -> Result<Vec<Bytes>, MultipartError> {
        let mut reader = Multipart::new("multipart/x-mixed-replace;boundary=abc")?;
        let mut found = Vec::new();
        let mut from = 0;
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.push(stream.len());
        cuts.sort_unstable();
        for cut in cuts {
            reader.feed(&stream[from..cut]);
            from = cut;
            while let Some(part) = reader.part()? {
                found.push(part);
            }
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn parts_are_the_same_wherever_the_chunks_are_cut(
            bodies in proptest::collection::vec("[a-z<>\r\n-]{0,60}", 1..6),
            cuts in proptest::collection::vec(0_usize..2000, 0..12),
            with_length in any::<bool>(),
        ) {
            let mut stream = Vec::new();
            for body in &bodies {
                let length = if with_length { format!("Content-length: {}\r\n", body.len()) } else { String::new() };
                stream.extend(format!("--abc\r\nContent-type: text/xml\r\n{length}\r\n{body}\r\n").into_bytes());
            }
            stream.extend(b"--abc--\r\n");
            let found = parts(&stream, &cuts).unwrap();
            prop_assert_eq!(found.len(), bodies.len());
            for (part, body) in found.iter().zip(&bodies) {
                let text = String::from_utf8_lossy(part);
                prop_assert_eq!(text.trim_end_matches("\r\n"), body.trim_end_matches("\r\n"));
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(
            stream in proptest::collection::vec(any::<u8>(), 0..500),
            cuts in proptest::collection::vec(0_usize..500, 0..5),
        ) {
            let _ = parts(&stream, &cuts);
            let _ = parts(&[b"--abc\r\n", stream.as_slice()].concat(), &cuts);
        }
    }

    #[test]
    fn limits_are_kept() {
        let endless_head = [b"--abc\r\n".as_slice(), &vec![b'x'; HEAD_BYTES_MAX + 1]].concat();
        assert!(matches!(
            parts(&endless_head, &[]),
            Err(MultipartError::TooLarge { what: "a part's head", .. })
        ));
        let claimed = format!("--abc\r\nContent-length: {}\r\n\r\n", DOCUMENT_BYTES_MAX + 1);
        assert!(matches!(
            parts(claimed.as_bytes(), &[]),
            Err(MultipartError::TooLarge { what: "a part", .. })
        ));
        assert!(matches!(parts(&vec![b'x'; HEAD_BYTES_MAX + 1], &[]), Err(MultipartError::TooLarge { .. })));
        assert!(parts(b"--abc\r\nContent-length: -1\r\n\r\n", &[]).is_err());
    }

    #[test]
    fn only_multipart_is_read() {
        for content_type in
            ["text/xml", "text/html;boundary=a", "multipart/mixed", "multipart/mixed;boundary="]
        {
            assert!(Multipart::new(content_type).is_err(), "{content_type}");
        }
        assert!(Multipart::new("multipart/x-mixed-replace; boundary=\"a b\"").is_ok());
    }
}

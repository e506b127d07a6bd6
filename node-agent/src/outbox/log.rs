//! The outbox's files, without threads or time.
//!
//! A folder of segments, `segment-0000000001` and on. Each begins with a founding frame that carries what
//! is needed of the segments before it, so a segment whose events are all acknowledged is simply deleted.
//! At most one frame is ever not yet synced; so on opening, a broken frame at the end of the last segment
//! is a write that a crash tore, and is cut off, and any other broken frame is damage, and is refused.

use super::record::{self, Entry, Founding, Frame, Group, Mark};
use super::standing::Standing;
use bytes::Bytes;
use millpool_proto::v1::AgentEvent;
use prost::Message;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A segment that has reached this size is followed by a new one.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 20;
/// A frame is begun anew when its entries reach this size.
const GROUP_BYTES_MAX: usize = 256 << 10;
/// A place in a segment is remembered every so many bytes.
const INDEX_STEP_BYTES: u64 = 8 << 10;

/// Why the outbox's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused.
    #[error("outbox: cannot {doing} {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A segment is damaged in the middle. Nothing is guessed: the operator decides.
    #[error(
        "outbox: {path} is damaged at byte {offset}: {what}. Events after it may be lost; move the folder \
         away to begin a new outbox, and keep it for the record"
    )]
    Damaged {
        /// Which segment.
        path: PathBuf,
        /// Where in it.
        offset: usize,
        /// What is wrong.
        what: String,
    },
    /// Another process has it open.
    #[error("outbox: {path} is in use by another process")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// Written by a later version.
    #[error("outbox: {path} has format {found}, this agent knows {known}", known = record::FORMAT)]
    Format {
        /// Which segment.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// One entry is larger than a frame.
    #[error("outbox: one entry of {bytes} bytes is larger than a frame may be")]
    EntryTooLarge {
        /// Its size.
        bytes: usize,
    },
}

struct Segment {
    number: u64,
    path: PathBuf,
    file: File,
    bytes: u64,
    /// First event's number, or the number that the next event would have.
    first_seq: u64,
    /// (first number at or behind this place, byte offset), ascending.
    index: Vec<(u64, u64)>,
}

/// The files, open.
pub struct Log {
    dir: PathBuf,
    _lock: File,
    /// In order; the last one is written to. Never empty.
    segments: VecDeque<Segment>,
    outbox_id: String,
    next_seq: u64,
    acked_seq: u64,
    /// The part of `acked_seq` that is on disk.
    noted_seq: u64,
    marks: BTreeMap<String, Bytes>,
    standing: Standing,
}

impl Log {
    /// Opens the outbox in `dir`, or makes one with the identity `new_id`.
    pub fn open(dir: &Path, new_id: impl FnOnce() -> String) -> Result<Self, LogError> {
        std::fs::create_dir_all(dir).map_err(io("create", dir))?;
        let lock = lock(dir)?;
        remove_unfinished(dir)?;
        let mut log = Self {
            dir: dir.to_owned(),
            _lock: lock,
            segments: VecDeque::new(),
            outbox_id: String::new(),
            next_seq: 1,
            acked_seq: 0,
            noted_seq: 0,
            marks: BTreeMap::new(),
            standing: Standing::default(),
        };
        let numbers = segment_numbers(dir)?;
        for (at, number) in numbers.iter().enumerate() {
            log.recover(*number, at + 1 == numbers.len())?;
        }
        if log.segments.is_empty() {
            log.outbox_id = new_id();
            log.begin_segment(numbers.last().copied().unwrap_or(0) + 1)?;
        }
        log.noted_seq = log.acked_seq;
        // Segments go before the acknowledgement is on disk; that they are gone says it as well.
        log.acked_seq = log.acked_seq.max(log.first_seq() - 1);
        Ok(log)
    }

    /// The outbox's random identity.
    pub fn outbox_id(&self) -> &str {
        &self.outbox_id
    }

    /// Highest number given; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    /// Highest number known to be acknowledged.
    pub fn acked_seq(&self) -> u64 {
        self.acked_seq
    }

    /// Lowest number that may still be read.
    pub fn first_seq(&self) -> u64 {
        self.segments.front().map_or(self.next_seq, |segment| segment.first_seq)
    }

    /// Size on disk.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// The marks.
    pub fn marks(&self) -> &BTreeMap<String, Bytes> {
        &self.marks
    }

    /// Numbers the entries' events, writes them, and syncs: when this returns they survive a crash.
    pub fn commit(&mut self, entries: Vec<Entry>) -> Result<(), LogError> {
        let mut group = Group::default();
        let mut group_bytes = 0;
        for entry in entries {
            let bytes = entry.encoded_len();
            if bytes + 64 > record::FRAME_BYTES_MAX {
                return Err(LogError::EntryTooLarge { bytes });
            }
            if group_bytes > 0 && group_bytes + bytes > GROUP_BYTES_MAX {
                self.write(std::mem::take(&mut group))?;
                self.sync()?;
                group_bytes = 0;
            }
            group_bytes += bytes;
            group.entries.push(entry);
        }
        if !group.entries.is_empty() {
            self.write(group)?;
            self.sync()?;
        }
        Ok(())
    }

    /// Writes one frame without syncing. Only [`Log::commit`] and the crash tests call it, and the former
    /// syncs before the next.
    pub fn write(&mut self, group: Group) -> Result<(), LogError> {
        if self.active().bytes >= SEGMENT_BYTES_MAX {
            let number = self.active().number + 1;
            self.begin_segment(number)?;
        }
        self.append_frame(group)
    }

    fn append_frame(&mut self, mut group: Group) -> Result<(), LogError> {
        let first_seq = self.next_seq;
        if self.acked_seq > self.noted_seq {
            group.acked_seq = self.acked_seq;
            self.noted_seq = self.acked_seq;
        }
        for entry in &mut group.entries {
            for event in &mut entry.events {
                event.seq = self.next_seq;
                self.next_seq += 1;
                self.standing.take(event);
            }
            if let Some(mark) = &entry.mark {
                self.marks.insert(mark.key.clone(), mark.state.clone());
            }
        }
        let last_seq = self.next_seq;
        let active = self.active();
        let offset = active.bytes;
        let frame = record::encode(&group).ok_or(LogError::EntryTooLarge { bytes: group.encoded_len() })?;
        active.file.write_all(&frame).map_err(io("write to", &active.path))?;
        active.bytes += frame.len() as u64;
        if last_seq > first_seq {
            active.remember(first_seq, offset);
        }
        Ok(())
    }

    /// Makes what was written durable. An error is final: what is on the disk is then unknown.
    pub fn sync(&mut self) -> Result<(), LogError> {
        let active = self.active();
        active.file.sync_data().map_err(io("sync", &active.path))
    }

    /// Events from `from_seq` on, at most `max`, in order and without gaps.
    pub fn read(&self, from_seq: u64, max: usize) -> Result<Vec<AgentEvent>, LogError> {
        let mut events = Vec::new();
        let mut next = from_seq.max(self.first_seq());
        for (at, segment) in self.segments.iter().enumerate() {
            let end = self.segments.get(at + 1).map_or(self.next_seq, |later| later.first_seq);
            if next >= end {
                continue;
            }
            segment.read(next, max, &mut events)?;
            if events.len() >= max {
                break;
            }
            next = end;
        }
        Ok(events)
    }

    /// Everything up to `seq` is acknowledged; whole segments of it are deleted, first of all, because the
    /// disk may be full. It is on disk with the next entries, or after [`Log::note_acked`].
    pub fn trim(&mut self, seq: u64) -> Result<(), LogError> {
        self.acked_seq = self.acked_seq.max(seq.min(self.last_seq()));
        while self.segments.len() > 1 && self.segments[1].first_seq <= self.acked_seq + 1 {
            if let Some(done) = self.segments.pop_front() {
                std::fs::remove_file(&done.path).map_err(io("delete", &done.path))?;
            }
        }
        Ok(())
    }

    /// Puts on disk what is acknowledged, unless it is there: through a restart, too, it must not be sent to
    /// a coordinator that has forgotten it.
    pub fn note_acked(&mut self) -> Result<(), LogError> {
        if self.acked_seq == self.noted_seq {
            return Ok(());
        }
        self.write(Group::default())?;
        self.sync()
    }

    /// Begins a new outbox with another identity, and puts into it, numbered from 1, what was acknowledged and
    /// still holds, and then what is not acknowledged. The new segment appears under its name only when it is whole.
    pub fn refound(&mut self, new_id: String) -> Result<(), LogError> {
        // What is put into the new one is told there, by its new numbers.
        let mut kept = std::mem::take(&mut self.standing).up_to(self.acked_seq);
        kept.extend(self.read(self.acked_seq + 1, usize::MAX)?);
        let number = self.active().number + 1;
        let unfinished = self.dir.join("unfinished");
        self.outbox_id = new_id;
        self.next_seq = 1;
        (self.acked_seq, self.noted_seq) = (0, 0);
        let old = std::mem::take(&mut self.segments);
        let segment = self.create(number, &unfinished)?;
        self.segments.push_back(segment);
        for chunk in kept.chunks(256) {
            let entry = Entry { events: chunk.to_vec(), mark: None };
            self.append_frame(Group { entries: vec![entry], ..Group::default() })?;
        }
        self.sync()?;
        let path = segment_path(&self.dir, number);
        std::fs::rename(&unfinished, &path).map_err(io("rename", &unfinished))?;
        sync_dir(&self.dir)?;
        self.active().path = path;
        for segment in old {
            std::fs::remove_file(&segment.path).map_err(io("delete", &segment.path))?;
        }
        Ok(())
    }

    fn active(&mut self) -> &mut Segment {
        self.segments.back_mut().expect("an open log has a segment")
    }

    fn begin_segment(&mut self, number: u64) -> Result<(), LogError> {
        let path = segment_path(&self.dir, number);
        let segment = self.create(number, &path)?;
        self.segments.push_back(segment);
        self.noted_seq = self.acked_seq;
        sync_dir(&self.dir)
    }

    /// A new segment with its founding frame, synced.
    fn create(&self, number: u64, path: &Path) -> Result<Segment, LogError> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(path)
            .map_err(io("create", path))?;
        let marks = self.marks.iter().map(|(key, state)| Mark { key: key.clone(), state: state.clone() });
        let founding = Founding {
            format: record::FORMAT,
            outbox_id: self.outbox_id.clone(),
            next_seq: self.next_seq,
            acked_seq: self.acked_seq,
            marks: marks.collect(),
        };
        let group = Group { founding: Some(founding), ..Group::default() };
        let frame = record::encode(&group).ok_or(LogError::EntryTooLarge { bytes: group.encoded_len() })?;
        file.write_all(&frame).map_err(io("write to", path))?;
        file.sync_all().map_err(io("sync", path))?;
        Ok(Segment {
            number,
            path: path.to_owned(),
            file,
            bytes: frame.len() as u64,
            first_seq: self.next_seq,
            index: Vec::new(),
        })
    }

    /// Reads a segment on opening, cuts off a torn tail, and takes its events and marks into account.
    fn recover(&mut self, number: u64, last: bool) -> Result<(), LogError> {
        let path = segment_path(&self.dir, number);
        let bytes = std::fs::read(&path).map_err(io("read", &path))?;
        let Some(mut segment) = self.found(number, &path, &bytes, last)? else {
            return Ok(());
        };
        let mut offset = segment.bytes as usize;
        loop {
            match record::decode(&bytes, offset) {
                Frame::End => break,
                Frame::Broken(what) => {
                    if !last || record::whole_frame_after(&bytes, offset) {
                        return Err(LogError::Damaged { path, offset, what: what.to_owned() });
                    }
                    cut(&segment.file, &path, offset)?;
                    break;
                }
                Frame::Whole(group, end) => {
                    self.take(&group, &mut segment, offset)?;
                    offset = end;
                }
            }
        }
        segment.bytes = offset as u64;
        self.segments.push_back(segment);
        Ok(())
    }

    /// Reads a segment's founding. A last segment without a whole one was never used, and is deleted.
    fn found(
        &mut self,
        number: u64,
        path: &Path,
        bytes: &[u8],
        last: bool,
    ) -> Result<Option<Segment>, LogError> {
        let damaged =
            |what: &str| LogError::Damaged { path: path.to_owned(), offset: 0, what: what.to_owned() };
        let (group, offset) = match record::decode(bytes, 0) {
            Frame::Whole(group, offset) => (group, offset),
            _ if last && !record::whole_frame_after(bytes, 0) => {
                std::fs::remove_file(path).map_err(io("delete", path))?;
                return Ok(None);
            }
            Frame::End => return Err(damaged("it is empty")),
            Frame::Broken(what) => return Err(damaged(what)),
        };
        let founding = group.founding.ok_or_else(|| damaged("it does not begin with a founding"))?;
        if founding.format != record::FORMAT {
            return Err(LogError::Format { path: path.to_owned(), found: founding.format });
        }
        if founding.outbox_id != self.outbox_id {
            for old in std::mem::take(&mut self.segments) {
                std::fs::remove_file(&old.path).map_err(io("delete", &old.path))?;
            }
            self.outbox_id = founding.outbox_id;
            self.standing = Standing::default();
        } else if founding.next_seq != self.next_seq {
            return Err(damaged("its first number does not follow the segment before it"));
        }
        self.next_seq = founding.next_seq;
        self.acked_seq = founding.acked_seq;
        self.marks = founding.marks.into_iter().map(|mark| (mark.key, mark.state)).collect();
        let file = OpenOptions::new().read(true).append(true).open(path).map_err(io("open", path))?;
        let first_seq = founding.next_seq;
        let bytes = offset as u64;
        Ok(Some(Segment { number, path: path.to_owned(), file, bytes, first_seq, index: Vec::new() }))
    }

    fn take(&mut self, group: &Group, segment: &mut Segment, offset: usize) -> Result<(), LogError> {
        let first_seq = self.next_seq;
        self.acked_seq = self.acked_seq.max(group.acked_seq);
        for entry in &group.entries {
            for event in &entry.events {
                if event.seq != self.next_seq {
                    let what = format!("event {} stands where {} is due", event.seq, self.next_seq);
                    return Err(LogError::Damaged { path: segment.path.clone(), offset, what });
                }
                self.next_seq += 1;
                self.standing.take(event);
            }
            if let Some(mark) = &entry.mark {
                self.marks.insert(mark.key.clone(), mark.state.clone());
            }
        }
        if self.next_seq > first_seq {
            segment.remember(first_seq, offset as u64);
        }
        Ok(())
    }
}

impl Segment {
    fn remember(&mut self, first_seq: u64, offset: u64) {
        if self.index.last().is_none_or(|(_, last)| offset >= last + INDEX_STEP_BYTES) {
            self.index.push((first_seq, offset));
        }
    }

    /// Appends to `events` those from `from_seq` on, until there are `max`.
    fn read(&self, from_seq: u64, max: usize, events: &mut Vec<AgentEvent>) -> Result<(), LogError> {
        let place = self.index.partition_point(|(first, _)| *first <= from_seq);
        let mut at = place.checked_sub(1).and_then(|before| self.index.get(before)).map_or(0, |(_, o)| *o);
        let mut buffer = Vec::new();
        while at < self.bytes && events.len() < max {
            let chunk = (self.bytes - at).min(INDEX_STEP_BYTES.max(record::FRAME_BYTES_MAX as u64 / 16));
            let mut wanted = chunk as usize;
            loop {
                buffer.resize(wanted, 0);
                self.file.read_exact_at(&mut buffer, at).map_err(io("read", &self.path))?;
                let used = collect(&buffer, from_seq, max, events);
                if used > 0 {
                    at += used as u64;
                    break;
                }
                if wanted as u64 >= self.bytes - at {
                    let what = "a frame that was whole is broken".to_owned();
                    return Err(LogError::Damaged { path: self.path.clone(), offset: at as usize, what });
                }
                wanted = (wanted * 4).min((self.bytes - at) as usize);
            }
        }
        Ok(())
    }
}

/// Takes the wanted events out of the whole frames at the buffer's start, and says how many bytes those
/// frames have.
fn collect(buffer: &[u8], from_seq: u64, max: usize, events: &mut Vec<AgentEvent>) -> usize {
    let mut used = 0;
    while let Frame::Whole(group, end) = record::decode(buffer, used) {
        let found = group.entries.into_iter().flat_map(|entry| entry.events);
        let wanted = found.filter(|event| event.seq >= from_seq);
        events.extend(wanted.take(max.saturating_sub(events.len())));
        used = end;
    }
    used
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError::Io { doing, path, source }
}

fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("segment-{number:010}"))
}

fn segment_numbers(dir: &Path) -> Result<Vec<u64>, LogError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io("list", dir))? {
        let name = entry.map_err(io("list", dir))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("segment-"));
        numbers.extend(number.and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(LogError::InUse { path: dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(LogError::Io { doing: "lock", path, source }),
    }
}

fn remove_unfinished(dir: &Path) -> Result<(), LogError> {
    let path = dir.join("unfinished");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("delete", &path)(error)),
        _ => Ok(()),
    }
}

fn cut(file: &File, path: &Path, offset: usize) -> Result<(), LogError> {
    file.set_len(offset as u64).map_err(io("cut", path))?;
    file.sync_all().map_err(io("sync", path))
}

fn sync_dir(dir: &Path) -> Result<(), LogError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync", dir))
}

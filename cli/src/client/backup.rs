//! A backup on its way here: the file's bytes piece by piece, and whether they are all.

use super::error::{ClientError, ErrorDetails, ErrorKind};
use super::retry::{Attempts, Repeat};
use super::{ANSWER_BYTES_MAX, Client};
use millpool_proto::v1::admin_service_client::AdminServiceClient;
use millpool_proto::v1::{BackupRequest, BackupResponse, BackupStart, backup_response::Part};
use prost::bytes::Bytes;
use std::time::Duration;
use tonic::{Status, Streaming};

/// The longest that a coordinator may be silent while it puts a backup together.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A backup that is being received.
pub struct Backup {
    client: Client,
    stream: Streaming<BackupResponse>,
    /// The endpoint that it comes from.
    at: usize,
    start: BackupStart,
    bytes: u64,
    crc32c: u32,
}

impl Client {
    /// Begins a backup. A coordinator that dies in the middle of it ends it: begin again then.
    pub async fn backup(&self, request: BackupRequest) -> Result<Backup, ClientError> {
        let attempts = Attempts::new(self, "Backup", Repeat::Read, None).streaming();
        let (stream, at) = attempts
            .run(request, |channel, request| async move {
                AdminServiceClient::new(channel)
                    .max_decoding_message_size(ANSWER_BYTES_MAX)
                    .backup(request)
                    .await
            })
            .await?;
        let start = BackupStart::default();
        let mut backup = Backup { client: self.clone(), stream, at, start, bytes: 0, crc32c: 0 };
        match backup.part().await? {
            Part::Start(start) => Ok(Backup { start, ..backup }),
            _ => Err(backup.cut("it does not begin as a backup does")),
        }
    }
}

impl Backup {
    /// What it is.
    pub fn start(&self) -> &BackupStart {
        &self.start
    }

    /// The next bytes of the file; None once all were given and their checksum is right.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        match self.part().await? {
            Part::Body(bytes) => {
                self.bytes += bytes.len() as u64;
                self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes);
                Ok(Some(bytes))
            }
            Part::End(end) if self.bytes == self.start.bytes && self.crc32c == end.crc32c => Ok(None),
            Part::End(_) => {
                Err(self.cut("what arrived is not what was sent: its length or checksum is wrong"))
            }
            Part::Start(_) => Err(self.cut("it begins twice")),
        }
    }

    async fn part(&mut self) -> Result<Part, ClientError> {
        let said = match tokio::time::timeout(SILENCE_MAX, self.stream.message()).await {
            Ok(Ok(Some(message))) => return message.part.ok_or_else(|| self.cut("a piece of it is empty")),
            Ok(Ok(None)) => Status::unavailable("the coordinator ended it before it was whole"),
            Ok(Err(status)) => status,
            Err(_) => Status::unavailable(format!("nothing was heard for {SILENCE_MAX:?}")),
        };
        Err(self.failed(&said))
    }

    fn cut(&self, why: &str) -> ClientError {
        self.failed(&Status::data_loss(format!("the backup cannot be used: {why}")))
    }

    fn failed(&self, said: &Status) -> ClientError {
        let endpoint = self.client.endpoints()[self.at].clone();
        let details = ErrorDetails { endpoint, attempts: 1, ..ErrorDetails::read("Backup", said) };
        self.client.move_on(self.at, None);
        ClientError { kind: ErrorKind::Unavailable, details: Box::new(details) }
    }
}

//! A Python counterpart in a process of its own, steered by lines of JSON: see `tests/counterparts`.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// How long a counterpart may take to be ready: it reads thousands of nodes, on machines that are busy.
const READY_MAX: Duration = Duration::from_secs(120);
/// How long it may take to do what it is told.
const DONE_MAX: Duration = Duration::from_secs(20);

pub struct Counterpart {
    child: Child,
    stdin: ChildStdin,
    said: Arc<Mutex<Vec<String>>>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counterparts")
}

/// The interpreter with what the counterparts need; installed by the first test that asks.
fn python() -> PathBuf {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("counterparts");
    let setup = std::process::Command::new("sh").arg(folder().join("setup.sh")).arg(&venv).output().unwrap();
    assert!(
        setup.status.success(),
        "the counterparts cannot be set up: {}{}",
        String::from_utf8_lossy(&setup.stdout),
        String::from_utf8_lossy(&setup.stderr)
    );
    venv.join("bin/python")
}

impl Counterpart {
    /// Starts a script, and waits until it is ready.
    pub async fn start(script: &str, arguments: &[&str]) -> Self {
        let python = tokio::task::spawn_blocking(python).await.unwrap();
        let mut command = Command::new(python);
        command.arg("-u").arg(folder().join(script)).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = said.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                heard.lock().unwrap().push(line);
            }
        });
        let counterpart = Self { child, stdin, said };
        counterpart.until("READY", READY_MAX, |said| said.iter().any(|line| line == "READY")).await;
        counterpart
    }

    /// Everything that it has said.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    /// Tells it to do something, and waits until it has.
    pub async fn tell(&mut self, what: Value) {
        let is_answer = |line: &&String| *line == "DONE" || line.starts_with("ERROR");
        let before = self.said().iter().filter(is_answer).count();
        self.stdin.write_all(format!("{what}\n").as_bytes()).await.unwrap();
        self.until(&what.to_string(), DONE_MAX, |said| said.iter().filter(is_answer).count() > before).await;
        let said = self.said();
        let answer = said.iter().filter(is_answer).nth(before).unwrap();
        assert_eq!(answer, "DONE", "{what}");
    }

    /// Waits until it has said a line that begins so.
    pub async fn hears(&self, beginning: &str) {
        self.until(beginning, DONE_MAX, |said| said.iter().any(|line| line.starts_with(beginning))).await;
    }

    /// Kills it, as a power cut would.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    async fn until(&self, what: &str, patience: Duration, is: impl Fn(&[String]) -> bool) {
        let deadline = tokio::time::Instant::now() + patience;
        while !is(&self.said()) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "not within {patience:?}: {what}: {:#?}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A port that nobody uses.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

//! The terminal's side of the console: `millpool-node-agent console`.

use super::when::{self, Direction};
use super::{Answer, LINE_BYTES_MAX, Listing, Question, SOCKET, show};
use crate::adapter::word::{Named, Word};
use crate::remote::program::Program;
use crate::remote::quarantine::Waiting;
use clap::{Args, Parser, Subcommand};
use jiff::tz::TimeZone;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Done.
pub const EXIT_DONE: u8 = 0;
/// Refused, or not answered in time.
pub const EXIT_REFUSED: u8 = 1;
/// The agent does not run here, or may not be asked.
pub const EXIT_UNREACHABLE: u8 = 69;
/// The agent answers within this time.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// A program is named with so much of its SHA-256 at least, hexadecimal digits: nobody makes another that begins alike.
const SHA256_DIGITS_LEAST: usize = 16;
/// What stands before each line that is typed.
const PROMPT: &str = "millpool> ";

/// The operator's terminal: the plant's list, and what was done.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct Flags {
    /// The plant, where the configuration has several.
    #[arg(long, value_name = "PLANT")]
    plant: Option<String>,
    /// The agent's socket, instead of the one that the configuration names.
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
    /// What to do; without, commands are read line by line.
    #[command(subcommand)]
    command: Option<Command>,
}

impl Flags {
    /// The socket, where it is named.
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }
}

const AFTER_HELP: &str = "\
TIME is a time of day (14:30), a span from now (+90m, -10m), or RFC 3339. Times are the plant's.

What is said is on disk when it is answered, and follows to the coordinator when there is a line.

Exit codes: 0 done; 1 refused, or not answered in time; 2 the command line cannot be understood; 69 the agent does
not run here, or this user may not write to its socket; 78 the configuration cannot be used.

Examples:
  millpool-node-agent console list
  millpool-node-agent console start lathe-3 --setup
  millpool-node-agent console finish lathe-3 --good 11 --scrapped 1
  millpool-node-agent console down lathe-3 'coolant pump leaks' --until 16:00
  millpool-node-agent console programs
  millpool-node-agent console release mill-1 bracket.nc 9f86d081884c7d65

A program in quarantine lies in the agent's folder, under quarantine/MACHINE, to be looked at before it is released.
";

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// What stands on the list, and how the machines are.
    List {
        /// One machine, with all of its work.
        machine: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// An operation begins; said again after --setup: it is set up, and cuts.
    Start {
        /// The machine.
        machine: String,
        /// BOOKING/OPERATION, or BOOKING; the next on the machine's list without.
        operation: Option<Named>,
        /// It is being set up first.
        #[arg(long)]
        setup: bool,
        /// When it began.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        at: Option<String>,
    },
    /// So many pieces of the operation at hand are good so far.
    Count {
        /// The machine.
        machine: String,
        /// Pieces.
        good: u32,
        /// When it is expected to end.
        #[arg(long, value_name = "TIME")]
        end: Option<String>,
    },
    /// The operation at hand is done.
    Finish {
        /// The machine.
        machine: String,
        /// Good pieces; without: what was counted, or else all that are not scrapped.
        #[arg(long, value_name = "PIECES")]
        good: Option<u32>,
        /// Pieces scrapped.
        #[arg(long, value_name = "PIECES", default_value_t = 0)]
        scrapped: u32,
        /// Energy by the machine's meter, Wh; modelled without.
        #[arg(long, value_name = "WH")]
        energy_wh: Option<u64>,
        /// When it ended.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        at: Option<String>,
    },
    /// The operation at hand is lost, and has to be done again.
    Scrap {
        /// The machine.
        machine: String,
        /// Why.
        reason: String,
        /// Pieces scrapped; all without.
        #[arg(long)]
        pieces: Option<u32>,
        /// When.
        #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
        at: Option<String>,
    },
    /// The machine takes no work.
    Down {
        /// The machine.
        machine: String,
        /// Why.
        reason: String,
        /// When it is expected back.
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// The machine takes work again.
    Up {
        /// The machine.
        machine: String,
    },
    /// The plant agrees that the machine moves when its session's holder asks from afar.
    Consent {
        /// The machine.
        machine: String,
        /// BOOKING/OPERATION, for that alone; whatever is asked without.
        operation: Option<Named>,
        /// For so long.
        #[arg(long = "for", value_name = "SPAN", default_value = "10m")]
        span: String,
    },
    /// The plant agrees no more.
    Withdraw {
        /// The machine.
        machine: String,
    },
    /// Programs that came from afar, and wait for the plant to look at them.
    Programs {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Lets a program out of quarantine, to where its machine reads programs.
    Release(ProgramFlags),
    /// Throws a program out of quarantine.
    Discard(ProgramFlags),
}

/// Which program.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ProgramFlags {
    /// The machine.
    machine: String,
    /// The program's name, as `programs` lists it.
    name: String,
    /// The beginning of its SHA-256, as `programs` lists it: at least 16 digits.
    sha256: String,
}

/// A line that is typed.
#[derive(Parser)]
#[command(no_binary_name = true, name = "", disable_help_flag = true)]
struct Typed {
    #[command(subcommand)]
    command: Command,
}

/// Why a plant cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// Which one is meant?
    #[error("--plant = {named}: accepted is one of {there}")]
    Plant {
        /// As it was named.
        named: String,
        /// What is there.
        there: String,
    },
    /// The socket does not answer.
    #[error("{path}: {source}; is the agent running here, and may this user write to the socket?", path = .path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No program is plainly meant.
    #[error(
        "program = {name} {sha256}: accepted are the name and at least the first {least} digits of the SHA-256 of one \
         that `programs` lists for the machine",
        least = SHA256_DIGITS_LEAST
    )]
    Program {
        /// As it was named.
        name: String,
        /// As it was named.
        sha256: String,
    },
    /// A time that cannot be read.
    #[error("{0}")]
    Time(String),
    /// An answer that cannot be read.
    #[error("the agent's answer cannot be understood: {0}")]
    Answer(String),
}

/// Does what the flags say with the plants and the agents' folders of the configuration. Answers with the exit code.
pub fn run(flags: Flags, plants: &[(String, PathBuf)]) -> u8 {
    let terminal = match Terminal::find(&flags, plants) {
        Ok(terminal) => terminal,
        Err(error) => {
            eprintln!("millpool-node-agent console: {error}");
            return EXIT_UNREACHABLE;
        }
    };
    match flags.command {
        Some(command) => terminal.carry_out(command),
        None => terminal.converse(),
    }
}

/// The agent's socket: the one that is named, or that of the plant that is meant.
pub(super) fn find_socket(
    socket: Option<&Path>,
    plant: Option<&str>,
    plants: &[(String, PathBuf)],
) -> Result<PathBuf, ConsoleError> {
    if let Some(socket) = socket {
        return Ok(socket.to_owned());
    }
    let meant = |own: &&(String, PathBuf)| plant.is_none_or(|named| named == own.0);
    match plants.iter().filter(meant).collect::<Vec<_>>()[..] {
        [(_, dir)] => Ok(dir.join(SOCKET)),
        _ => {
            let names: Vec<_> = plants.iter().map(|(plant, _)| plant.as_str()).collect();
            let named = plant.unwrap_or("none").to_owned();
            Err(ConsoleError::Plant { named, there: names.join(", ") })
        }
    }
}

/// A terminal before an agent's socket.
pub(super) struct Terminal {
    pub(super) socket: PathBuf,
    pub(super) zone: TimeZone,
}

impl Terminal {
    fn find(flags: &Flags, plants: &[(String, PathBuf)]) -> Result<Self, ConsoleError> {
        let socket = find_socket(flags.socket.as_deref(), flags.plant.as_deref(), plants)?;
        Ok(Self::at(socket))
    }

    /// The terminal before a socket.
    pub(super) fn at(socket: PathBuf) -> Self {
        Self { socket, zone: TimeZone::system() }
    }

    /// Reads commands line by line.
    fn converse(&self) -> u8 {
        let asked = std::io::stdin().is_terminal();
        let mut last = EXIT_DONE;
        if asked {
            println!(
                "{}: list, start, count, finish, scrap, down, up, consent, withdraw, programs, release, discard; help says more, quit ends",
                self.socket.display()
            );
        }
        loop {
            if asked {
                print!("{PROMPT}");
                // A prompt that cannot be shown is none.
                let _ = std::io::stdout().flush();
            }
            let mut line = String::new();
            if !matches!(std::io::stdin().lock().read_line(&mut line), Ok(1..)) {
                return last;
            }
            match words(&line) {
                Err(why) => {
                    eprintln!("{why}");
                    last = EXIT_REFUSED;
                }
                Ok(words) => match words.first().map(String::as_str) {
                    None => {}
                    Some("quit" | "exit") => return last,
                    Some(_) => match Typed::try_parse_from(words) {
                        Ok(typed) => last = self.carry_out(typed.command),
                        Err(error) => {
                            // To the terminal; where there is none any more, the next read says so.
                            let _ = error.print();
                        }
                    },
                },
            }
        }
    }

    fn carry_out(&self, command: Command) -> u8 {
        match self.try_carry_out(command) {
            Ok(code) => code,
            Err(error @ ConsoleError::Unreachable { .. }) => {
                eprintln!("{error}");
                EXIT_UNREACHABLE
            }
            Err(error) => {
                eprintln!("{error}");
                EXIT_REFUSED
            }
        }
    }

    fn try_carry_out(&self, command: Command) -> Result<u8, ConsoleError> {
        let (machine, word) = match command {
            Command::List { machine, json } => return self.list(machine.as_deref(), json),
            Command::Start { machine, operation, setup, at } => {
                (machine, Word::Start { operation, setup, at_ms: self.time(at, Direction::Past)? })
            }
            Command::Count { machine, good, end } => {
                (machine, Word::Count { good, end_ms: self.time(end, Direction::Future)? })
            }
            Command::Finish { machine, good, scrapped, energy_wh, at } => {
                let at_ms = self.time(at, Direction::Past)?;
                (machine, Word::Finish { good, scrapped, energy_wh, at_ms })
            }
            Command::Scrap { machine, reason, pieces, at } => {
                (machine, Word::Scrap { pieces, reason, at_ms: self.time(at, Direction::Past)? })
            }
            Command::Down { machine, reason, until } => {
                (machine, Word::Down { reason, until_ms: self.time(until, Direction::Future)? })
            }
            Command::Up { machine } => (machine, Word::Up),
            Command::Consent { machine, operation, span } => {
                let for_s = when::span_s(&span).map_err(ConsoleError::Time)?;
                let question = Question::Consent { machine: machine.clone(), operation, for_s, by: user() };
                return self.tell(&machine, &question);
            }
            Command::Withdraw { machine } => {
                return self.tell(&machine, &Question::Withdraw { machine: machine.clone(), by: user() });
            }
            Command::Programs { json } => return self.programs(json),
            Command::Release(flags) => {
                let (machine, program) = (flags.machine.clone(), self.program(&flags)?);
                return self.tell(&flags.machine, &Question::Release { machine, program, by: user() });
            }
            Command::Discard(flags) => {
                let (machine, program) = (flags.machine.clone(), self.program(&flags)?);
                return self.tell(&flags.machine, &Question::Discard { machine, program, by: user() });
            }
        };
        self.tell(&machine, &Question::Say { machine: machine.clone(), word, by: user() })
    }

    /// Says something of a machine.
    fn tell(&self, machine: &str, question: &Question) -> Result<u8, ConsoleError> {
        match self.ask(question)? {
            Answer::Done { words } => {
                println!("{machine}: {words}");
                Ok(EXIT_DONE)
            }
            Answer::Refused { why } | Answer::Late { why } => {
                eprintln!("{machine}: {why}");
                Ok(EXIT_REFUSED)
            }
            Answer::Listing(_) | Answer::Programs { .. } | Answer::Rows { .. } | Answer::Tallies { .. } => {
                Err(ConsoleError::Answer("something that was not asked for".to_owned()))
            }
        }
    }

    fn programs(&self, json: bool) -> Result<u8, ConsoleError> {
        let waiting = self.waiting()?;
        if json {
            let text = serde_json::to_string_pretty(&waiting);
            println!("{}", text.map_err(|error| ConsoleError::Answer(error.to_string()))?);
        } else {
            print!("{}", show::programs(&waiting, &self.zone));
        }
        Ok(EXIT_DONE)
    }

    fn waiting(&self) -> Result<Vec<Waiting>, ConsoleError> {
        match self.ask(&Question::Programs)? {
            Answer::Programs { waiting } => Ok(waiting),
            other => Err(ConsoleError::Answer(format!("{other:?}"))),
        }
    }

    /// The program that is meant. What was looked at is what is moved: its name alone is not enough.
    fn program(&self, flags: &ProgramFlags) -> Result<Program, ConsoleError> {
        let ProgramFlags { machine, name, sha256 } = flags;
        let begins = sha256.to_ascii_lowercase();
        let waiting = self.waiting()?;
        let of_machine = waiting.iter().filter(|one| one.machine_id == *machine);
        let meant: Vec<_> = of_machine
            .map(|one| &one.program)
            .filter(|one| one.name == *name && one.sha256.to_string().starts_with(&begins))
            .collect();
        match meant[..] {
            [program] if begins.len() >= SHA256_DIGITS_LEAST => Ok(program.clone()),
            _ => Err(ConsoleError::Program { name: name.clone(), sha256: sha256.clone() }),
        }
    }

    fn list(&self, machine: Option<&str>, json: bool) -> Result<u8, ConsoleError> {
        let listing = self.listing()?;
        if let Some(id) = machine.filter(|id| !listing.machines.iter().any(|own| own.id == *id)) {
            let names: Vec<_> = listing.machines.iter().map(|own| own.id.as_str()).collect();
            eprintln!("machine = {id:?}: accepted is one of {}", names.join(", "));
            return Ok(EXIT_REFUSED);
        }
        if json {
            let text = serde_json::to_string_pretty(&listing);
            println!("{}", text.map_err(|error| ConsoleError::Answer(error.to_string()))?);
        } else {
            print!("{}", show::listing(&listing, machine, &self.zone));
        }
        Ok(EXIT_DONE)
    }

    pub(super) fn listing(&self) -> Result<Listing, ConsoleError> {
        match self.ask(&Question::List)? {
            Answer::Listing(listing) => Ok(*listing),
            other => Err(ConsoleError::Answer(format!("{other:?}"))),
        }
    }

    /// A time as it was typed. The plant's clock, which may not be this computer's, is asked for now.
    fn time(&self, text: Option<String>, direction: Direction) -> Result<Option<i64>, ConsoleError> {
        let Some(text) = text else { return Ok(None) };
        let now_ms = self.listing()?.now_ms;
        when::read(&text, now_ms, &self.zone, direction).map(Some).map_err(ConsoleError::Time)
    }

    fn ask(&self, question: &Question) -> Result<Answer, ConsoleError> {
        let line = ask(&self.socket, question)
            .map_err(|source| ConsoleError::Unreachable { path: self.socket.clone(), source })?;
        serde_json::from_slice(&line).map_err(|error| ConsoleError::Answer(error.to_string()))
    }
}

/// Who sits at the terminal.
fn user() -> String {
    std::env::var("USER").unwrap_or_default()
}

fn ask(socket: &Path, question: &Question) -> std::io::Result<Vec<u8>> {
    next(&mut put(socket, question)?)
}

/// Puts a question; what is read afterwards is the answer.
pub(super) fn put(socket: &Path, question: &Question) -> std::io::Result<BufReader<UnixStream>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let mut bytes = serde_json::to_vec(question)?;
    bytes.push(b'\n');
    stream.write_all(&bytes)?;
    Ok(BufReader::new(stream))
}

/// The next line of an answer.
pub(super) fn next(answer: &mut BufReader<UnixStream>) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    answer.take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// A line's words: parted by blanks, unless these stand between quotes.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    match quote {
        Some(open) => Err(format!("a quote {open} is not closed")),
        None => {
            words.extend(word);
            Ok(words)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_a_command() {
        let typed = |line: &str| Typed::try_parse_from(words(line).unwrap()).map(|typed| typed.command);
        let down = Command::Down {
            machine: "lathe-3".to_owned(),
            reason: "it's the pump".to_owned(),
            until: Some("16:00".to_owned()),
        };
        assert_eq!(typed("down lathe-3 \"it's the pump\" --until 16:00\n").unwrap(), down);
        assert!(matches!(typed("start lathe-3 b-1/0 --at -10m"), Ok(Command::Start { at: Some(_), .. })));
        assert!(typed("start lathe-3 b-1/x").is_err());
        assert!(typed("fly lathe-3").is_err());
        assert_eq!(words(" \n").unwrap(), Vec::<String>::new());
        assert_eq!(words("a '' b").unwrap(), ["a", "", "b"]);
        assert!(words("scrap m 'chatter").is_err());
    }
}

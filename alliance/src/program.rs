//! A program that comes to a plant from afar, as the record knows it: a name and what the content hashes to. The content
//! itself is never part of the state.

use crate::refusal::{Reason, Refusal};

/// Longest content of a program, bytes.
pub const PROGRAM_BYTES_MAX: u64 = 32 << 20;
/// Longest name of a program's file, characters.
pub const FILE_NAME_LENGTH_MAX: usize = 64;

/// SHA-256 of a program's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Reads 64 hexadecimal digits; `field` is named where they are not.
    pub fn parse(field: &str, text: &str) -> Result<Self, Refusal> {
        let digit = |c: &u8| char::from(*c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let digits: Option<Vec<u8>> = text.as_bytes().iter().map(digit).collect();
        let bytes = digits.filter(|digits| digits.len() == 64).and_then(|digits| {
            let (pairs, _) = digits.as_chunks::<2>();
            pairs.iter().map(|[high, low]| high << 4 | low).collect::<Vec<u8>>().try_into().ok()
        });
        let accepted = "64 hexadecimal digits, the SHA-256 of the program's content";
        bytes.map(Self).ok_or_else(|| Refusal::invalid(Reason::InvalidField, field, text, accepted))
    }
}

impl std::fmt::Display for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// Refuses what is not plainly the name of a file: nothing in it leads out of a folder, hides, or looks like a flag.
pub fn file_name(field: &str, name: &str) -> Result<(), Refusal> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let length = name.chars().count();
    if (1..=FILE_NAME_LENGTH_MAX).contains(&length)
        && name.chars().all(fits)
        && !name.starts_with(['.', '-'])
        && !name.ends_with('.')
    {
        return Ok(());
    }
    let accepted = format!(
        "1 to {FILE_NAME_LENGTH_MAX} letters, digits, dots, dashes and underscores, with no dot or dash in front and no \
         dot at the end"
    );
    Err(Refusal::invalid(Reason::InvalidField, field, name, &accepted))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_written() {
        let text: String = (0..32).map(|byte| format!("{:02x}", byte * 7 % 256)).collect();
        let read = Sha256::parse("sha", &text).unwrap();
        assert_eq!((read.to_string(), read.0[1]), (text.clone(), 7));
        assert_eq!(Sha256::parse("sha", &text.to_uppercase()), Ok(read));
        for wrong in ["", "00", &text[1..], &format!("{text}0"), &text.replace('7', "g"), &"é".repeat(32)] {
            assert_eq!(Sha256::parse("sha", wrong).unwrap_err().field, "sha", "{wrong}");
        }
    }

    #[test]
    fn a_file_name_leads_nowhere_else() {
        for name in ["P4711.nc", "a", "9", "_x", "part-7_v2.MPF"] {
            assert_eq!(file_name("program", name), Ok(()), "{name}");
        }
        let long = "x".repeat(65);
        for name in ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "-rf", "a b", "ü", "a\0", "CON.", &long]
        {
            assert!(file_name("program", name).is_err(), "{name}");
        }
    }
}

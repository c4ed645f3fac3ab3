//! The shared secrets of `hop` rules that this pod holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::model::ssa::{Rule, Secret};

/// Secrets by the ID under which rules name them. Never printed.
#[derive(Clone, Debug, Default)]
pub struct Secrets(BTreeMap<String, Secret>);

/// A file holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It could not be read.
    #[error("{}: {cause}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Something else stands in it; it is not repeated here.
    #[error("{}: not 32 hexadecimal digits", .path.display())]
    NotHex {
        /// The file.
        path: PathBuf,
    },
}

impl Secrets {
    /// Reads one file for each ID.
    ///
    /// # Errors
    /// The first file that does not serve.
    pub fn from_files(files: &BTreeMap<String, PathBuf>) -> Result<Self, SecretFileError> {
        let read = |(id, path): (&String, &PathBuf)| Ok((id.clone(), secret(path)?));
        files.iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    /// The secret that the rule names, where this pod holds it.
    #[must_use]
    pub fn of(&self, rule: &Rule) -> Option<&Secret> {
        self.0.get(rule.secret_id()?)
    }
}

fn secret(path: &Path) -> Result<Secret, SecretFileError> {
    let text =
        std::fs::read_to_string(path).map_err(|cause| SecretFileError::Unreadable { path: path.into(), cause })?;
    let text = text.trim();
    let digits = text.len() == 32 && text.bytes().all(|octet| octet.is_ascii_hexdigit());
    match u128::from_str_radix(text, 16) {
        Ok(number) if digits => Ok(Secret::new(number.to_be_bytes())),
        Ok(_) | Err(_) => Err(SecretFileError::NotHex { path: path.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Secret, SecretFileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        secret(file.path())
    }

    #[test]
    fn a_secret_is_32_digits_of_either_case_and_nothing_else() {
        let expected = Secret::new([0xAB; 16]);
        assert!(read(&"aB".repeat(16)).unwrap() == expected);
        assert!(read(&format!("{}\n", "ab".repeat(16))).unwrap() == expected);
        for wrong in ["", &"ab".repeat(15), &"ab".repeat(17), &"xy".repeat(16), &format!("+{}", "a".repeat(31))] {
            let refused = read(wrong).unwrap_err().to_string();
            assert!(refused.ends_with("not 32 hexadecimal digits"), "{refused}");
        }
    }
}

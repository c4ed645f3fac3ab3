//! How people's commands print: text for reading, JSON for programs.

use std::io::{self, Write};

use clap::ValueEnum;

/// The flag that chooses the form.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Output {
    /// How to print the answer.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Text)]
    /// It.
    pub format: Format,
}

/// The forms.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// For reading.
    Text,
    /// For programs.
    Json,
}

/// Prints a whole answer. A reader that has seen enough (`| head`) is no failure.
///
/// # Errors
/// When it could not be written otherwise.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

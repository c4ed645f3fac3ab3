//! Where a setting comes from.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// The source of a setting, later ones winning over earlier ones: default, file, environment, flag.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// A position in a file.
    File {
        /// The file, as it was named.
        path: Arc<Path>,
        /// Line, from 1; 0 for the file as a whole.
        line: u32,
        /// Column in characters, from 1.
        column: u32,
    },
    /// A variable of the environment, by name.
    Environment(Arc<str>),
    /// A flag of the command line, by name.
    Flag(Arc<str>),
    /// Nobody set it.
    Default,
}

impl Place {
    /// The file as a whole.
    #[must_use]
    pub fn whole_file(path: &Path) -> Self {
        Self::File { path: path.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Default => f.write_str("default"),
        }
    }
}

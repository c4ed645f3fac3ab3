//! The `funicular` program: everything it does is in the library, under [`funicular::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    funicular::cli::run()
}

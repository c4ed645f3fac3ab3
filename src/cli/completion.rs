//! `funicular completion`: a shell's script that completes this program's commands and flags.

use std::process::ExitCode;

use clap_complete::Shell;

use crate::ops::output::print;

/// Flags of `funicular completion`.
#[derive(Debug, clap::Args)]
#[command(after_help = "bash: funicular completion bash > /etc/bash_completion.d/funicular\n\
                        zsh:  funicular completion zsh > \"${fpath[1]}/_funicular\"\n\
                        fish: funicular completion fish > ~/.config/fish/completions/funicular.fish")]
pub(super) struct Args {
    /// The shell.
    shell: Shell,
}

/// `command` is the whole program's, so that the script knows what the program knows.
pub(super) fn run(args: &Args, mut command: clap::Command) -> anyhow::Result<ExitCode> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

//! `braid completions`: completion scripts for shells.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::exit::Failure;

/// Print a shell's completion script
///
/// Examples:
///   source <(braid completions bash)
///   braid completions zsh > ~/.zfunc/_braid
///   braid completions fish > ~/.config/fish/completions/braid.fish
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// For which shell
    shell: Shell,
}

pub fn run<C: CommandFactory>(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "braid", &mut script);
    io::Write::write_all(&mut io::stdout(), &script)?;
    Ok(())
}

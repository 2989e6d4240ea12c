//! `braid man`: its manual pages.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;

use crate::exit::Failure;

/// Write manual pages to a directory: braid.1, and one for each command
///
/// Example:
///   braid man ~/.local/share/man/man1
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The directory; made if it is not there
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub fn run<C: CommandFactory>(args: &Args) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::failed(format!("can't write to {}: {e}", args.directory.display()));
    fs::create_dir_all(&args.directory).map_err(failed)?;
    clap_mangen::generate_to(C::command(), &args.directory).map_err(failed)
}

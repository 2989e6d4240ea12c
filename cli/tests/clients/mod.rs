//! The Kinesis clients that `scripts/kinesis-clients` installs, for the tests here that have them call real nodes.

use std::path::Path;
use std::process::Command;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A Python that has boto3.
pub fn python() -> Result<String, String> {
    let made = Command::new(root().join("scripts/kinesis-clients")).output().map_err(|e| e.to_string())?;
    match made.status.success() {
        true => Ok(String::from_utf8_lossy(&made.stdout).trim().to_string()),
        false => Err(String::from_utf8_lossy(&made.stderr).trim().to_string()),
    }
}

/// Whether all of these could be put beside that Python, and these programs can be run.
pub fn has(python: &Result<String, String>, beside: &[&str], programs: &[&str]) -> Result<(), String> {
    let python = python.as_ref().map_err(Clone::clone)?;
    let venv = Path::new(python).ancestors().nth(2).unwrap_or(Path::new(""));
    if let Some(missing) = beside.iter().map(|it| venv.join(it)).find(|it| !it.exists()) {
        return Err(format!("{} is not there", missing.display()));
    }
    for program in programs {
        Command::new(program).arg("--version").output().map_err(|e| format!("{program}: {e}"))?;
    }
    Ok(())
}

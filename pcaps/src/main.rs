//! Writes the captures: `cargo run -p flowtap-pcaps -- DIR`, or compares them with `-- --check DIR`.

use std::io::{Write, stderr, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::{env, io};

fn main() -> io::Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["--check", folder] => check(Path::new(folder)),
        [folder] if !folder.starts_with('-') => {
            flowtap_pcaps::write(Path::new(folder))?;
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            writeln!(stderr(), "usage: flowtap-pcaps [--check] DIR")?;
            Ok(ExitCode::from(2))
        }
    }
}

fn check(folder: &Path) -> io::Result<ExitCode> {
    let differences = flowtap_pcaps::differences(folder);
    for path in &differences {
        writeln!(stdout(), "differs: {}", path.display())?;
    }
    Ok(if differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

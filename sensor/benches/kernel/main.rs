//! Nanoseconds a packet of the kernel's programs, by the kernel's own test run: one hot flow, and a million flows.
//!
//! `cargo bench -p flowtap --features ebpf --bench kernel`, as root. The kernel measures, so the profile of this program
//! does not matter. What counts is the distance from the empty program in the same run.

mod frames;
mod hot;
mod million;

use std::io::{self, Write};

use anyhow::{Context, Result};
use aya::{Ebpf, EbpfError, programs::SchedClassifier};
use flowtap::capture::kernel::OBJECT;

fn main() -> Result<()> {
    let mut out = io::stdout().lock();
    let mut object = match Ebpf::load(OBJECT) {
        Ok(object) => object,
        Err(error) => {
            writeln!(out, "skipped: programs cannot be loaded here ({})", root_cause(&error))?;
            return Ok(());
        }
    };
    hot::run(&mut object, &mut out)?;
    drop(object);
    million::run(&mut out)
}

/// A program of the object, verified by the kernel.
fn classifier<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program: &mut SchedClassifier =
        object.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?;
    if program.fd().is_err() {
        program.load()?;
    }
    Ok(program)
}

fn root_cause(error: &EbpfError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |cause| cause.source());
    causes.last().map_or_else(String::new, ToString::to_string)
}

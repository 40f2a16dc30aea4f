//! What the kernel said of a program, in one line.
//!
//! Of one that it refuses, the verifier gives an account of every instruction that it went through, which may be thousands
//! of lines. What people need of it is its last word.

use aya::programs::ProgramError;
use std::fmt;

/// A program that is not loaded, or not attached.
#[derive(Debug)]
pub struct Refused(pub Box<ProgramError>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            ProgramError::LoadError { io_error, verifier_log } => {
                write!(f, "{io_error}")?;
                match last_word(&verifier_log.to_string()) {
                    Some(word) => write!(f, "; the verifier says: {word}"),
                    None => Ok(()),
                }
            }
            error => f.write_str(&chain(error)),
        }
    }
}

impl std::error::Error for Refused {}

/// An error with its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| {
        let cause = cause.to_string();
        if line.contains(&cause) { line } else { format!("{line}: {cause}") }
    })
}

impl From<ProgramError> for Refused {
    fn from(error: ProgramError) -> Self {
        Self(Box::new(error))
    }
}

/// The last line that is no account: instructions begin with their number, source lines with a semicolon.
fn last_word(log: &str) -> Option<&str> {
    let is_account = |line: &&str| {
        line.starts_with([';', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
            || ACCOUNTS.iter().any(|start| line.starts_with(start))
    };
    log.lines().map(str::trim).rfind(|line| !line.is_empty() && !is_account(line))
}

const ACCOUNTS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.1 refused a program of ours.
    #[test]
    fn a_refusal_is_one_line() {
        let log = "0: R1=ctx(off=0,imm=0) R10=fp0\n; #[classifier]\n0: (bf) r4 = r1   ; R1=ctx(off=0,imm=0)\n\
                   815: (79) r4 = *(u64 *)(r10 -312)\ninvalid read from stack R10 off=-312 size=8\n\
                   verification time 404247 usec\nstack depth 344+16+0+0+0\nprocessed 15392 insns (limit 1000000)\n";
        assert_eq!(last_word(log), Some("invalid read from stack R10 off=-312 size=8"));
        assert_eq!(last_word(""), None);
        assert_eq!(last_word("0: (bf) r4 = r1\nprocessed 1 insns\n"), None);
    }
}

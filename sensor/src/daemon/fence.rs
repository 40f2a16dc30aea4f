//! The fence around a run, raised once its rights are given up: what a sensor never does it can't do any more, whatever
//! a packet or a configuration made of it.
//!
//! Files: Landlock (landlock(7)) lets it write beneath its output and its state, and read what a reload reads. System
//! calls: a seccomp filter (seccomp(2)) refuses those in [`refused_calls`], and lets all others pass, so that another C
//! library does not break it. Both hold for the calling thread and those that it makes later, and none can be taken
//! back. Where the kernel has one of them not, the run goes on without, and says so.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};
use std::{env, io, thread};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope, path_beneath_rules,
};
use nix::libc;
use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

/// The files that a run has to do with. What is beneath a directory belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Territory {
    /// Directories that it writes into.
    pub writable: Vec<PathBuf>,
    /// Directories that it reads again.
    pub readable: Vec<PathBuf>,
}

/// What is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fence {
    /// Around files.
    pub files: Strength,
    /// Around system calls.
    pub calls: Strength,
}

/// How much of a fence stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strength {
    /// All of it.
    Whole,
    /// What this kernel has of it.
    Partial,
    /// Nothing.
    #[default]
    Missing,
}

impl Strength {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "fenced",
            Self::Partial => "partly-fenced",
            Self::Missing => "not-fenced",
        }
    }
}

/// Why there is no fence.
#[derive(Debug, thiserror::Error)]
enum FenceError {
    #[error(transparent)]
    Files(#[from] RulesetError),
    #[error(transparent)]
    Filter(#[from] BackendError),
    #[error(transparent)]
    Calls(#[from] seccompiler::Error),
}

impl Fence {
    /// Raises it around this thread, which must not be able to gain rights, and those that it makes.
    pub(super) fn raise(territory: &Territory) -> Self {
        let or_missing = |what: &str, raised: Result<Strength, FenceError>| {
            raised.unwrap_or_else(|error| {
                tracing::warn!(%error, "no fence around {what}");
                Strength::Missing
            })
        };
        Self { files: or_missing("files", fence_files(territory)), calls: or_missing("system calls", fence_calls()) }
    }

    /// What this machine has of it: tried out on a thread of its own.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn probe(territory: &Territory) -> io::Result<Self> {
        let territory = territory.clone();
        let probe = thread::Builder::new().spawn(move || Self::raise(&territory))?;
        Ok(probe.join().unwrap_or_default())
    }

    pub(super) fn tell(&self) {
        let (files, calls) = (self.files.as_str(), self.calls.as_str());
        tracing::info!(files, system_calls = calls, "fence");
    }
}

fn fence_files(territory: &Territory) -> Result<Strength, FenceError> {
    let readable = territory.readable.iter().map(PathBuf::as_path).chain(SYSTEM_READABLE.map(Path::new));
    // A panic reads the program itself to name its functions.
    let program = env::current_exe().ok();
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST_KNOWN))?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(&territory.writable, writing()))?
        .add_rules(path_beneath_rules(readable.chain(program.as_deref()), reading()))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => Strength::Whole,
        RulesetStatus::PartiallyEnforced => Strength::Partial,
        RulesetStatus::NotEnforced => Strength::Missing,
    })
}

/// Linux 6.12. What an older kernel lacks of it is left out there.
const NEWEST_KNOWN: ABI = ABI::V6;

/// What the kernel tells of itself: libpcap, and the choice of the number of threads, ask there.
const SYSTEM_READABLE: [&str; 2] = ["/proc", "/sys"];

fn reading() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// Ordinary files and directories: no devices, sockets or links, and nothing is executed.
fn writing() -> BitFlags<AccessFs> {
    reading()
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}

fn fence_calls() -> Result<Strength, FenceError> {
    // Machines for which there is no filter.
    let Ok(machine) = TargetArch::try_from(ARCH) else { return Ok(Strength::Missing) };
    // No condition: whatever the arguments are.
    let rules = refused_calls().map(|call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, machine)?;
    apply_filter(&BpfProgram::try_from(filter)?)?;
    Ok(Strength::Whole)
}

/// The system calls that a run is refused.
pub fn refused_calls() -> impl Iterator<Item = i64> {
    #[cfg(target_arch = "x86_64")]
    let ports = [libc::SYS_ioperm, libc::SYS_iopl];
    #[cfg(not(target_arch = "x86_64"))]
    let ports = [];
    REFUSED.iter().flat_map(|(_, calls)| calls.iter().copied()).chain(ports)
}

/// By what they would be for. What captures and mirrors packets (sockets, bpf, ioctl, perf events) is not among them.
const REFUSED: [(&str, &[i64]); 8] = [
    ("other programs", &[libc::SYS_execve, libc::SYS_execveat]),
    (
        "other processes",
        &[
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
            libc::SYS_pidfd_getfd,
            libc::SYS_kcmp,
        ],
    ),
    (
        "another user",
        &[
            libc::SYS_setuid,
            libc::SYS_setgid,
            libc::SYS_setreuid,
            libc::SYS_setregid,
            libc::SYS_setresuid,
            libc::SYS_setresgid,
            libc::SYS_setgroups,
            libc::SYS_setfsuid,
            libc::SYS_setfsgid,
        ],
    ),
    (
        "another file system",
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
            libc::SYS_open_by_handle_at,
            libc::SYS_mknodat,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_quotactl,
        ],
    ),
    ("another namespace", &[libc::SYS_unshare, libc::SYS_setns]),
    (
        "another kernel",
        &[
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_reboot,
            libc::SYS_acct,
            libc::SYS_syslog,
            libc::SYS_vhangup,
        ],
    ),
    (
        "another time or name",
        &[
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_clock_adjtime,
            libc::SYS_adjtimex,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
        ],
    ),
    (
        "ways around, and what has often been broken",
        &[
            libc::SYS_keyctl,
            libc::SYS_add_key,
            libc::SYS_request_key,
            libc::SYS_userfaultfd,
            // It makes other calls, which no filter sees.
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
            libc::SYS_personality,
        ],
    ),
];

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};
    use rustix::process::{Gid, getegid};
    use rustix::thread::{set_no_new_privs, set_thread_res_gid};

    use super::*;

    /// Does something behind the fence, on a thread of its own.
    fn behind<T: Send>(territory: &Territory, act: impl FnOnce(Fence) -> T + Send) -> T {
        let raised = || {
            set_no_new_privs(true).unwrap();
            act(Fence::raise(territory))
        };
        thread::scope(|scope| scope.spawn(raised).join().unwrap())
    }

    #[test]
    fn files_elsewhere_can_not_be_touched() {
        let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [output, configuration, elsewhere] = directories.each_ref().map(tempfile::TempDir::path);
        for directory in [output, configuration, elsewhere] {
            fs::write(directory.join("there"), "text").unwrap();
        }
        let territory = Territory { writable: vec![output.into()], readable: vec![configuration.into()] };
        let denied =
            |result: io::Result<()>| result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        behind(&territory, |fence| {
            if fence.files == Strength::Missing {
                eprintln!("skipped: this kernel has no Landlock");
                return;
            }
            fs::create_dir_all(output.join("a/b")).unwrap();
            fs::write(output.join("a/b/new"), "text").unwrap();
            fs::rename(output.join("a/b/new"), output.join("moved")).unwrap();
            assert_eq!(fs::read(output.join("moved")).unwrap(), b"text");
            fs::remove_file(output.join("moved")).unwrap();

            assert_eq!(fs::read(configuration.join("there")).unwrap(), b"text");
            assert!(denied(fs::write(configuration.join("there"), "other")));
            assert!(denied(fs::write(configuration.join("new"), "text")));

            assert!(denied(File::open(elsewhere.join("there")).map(drop)));
            assert!(denied(File::create(elsewhere.join("new")).map(drop)));
            assert!(denied(fs::remove_file(elsewhere.join("there"))));
            assert!(denied(fs::read_dir("/etc").map(drop)));
            assert!(fs::read("/proc/self/status").is_ok_and(|text| !text.is_empty()));
        });
        assert_eq!(fs::read(elsewhere.join("there")).unwrap(), b"text", "here nothing is fenced");
    }

    #[test]
    fn system_calls_that_no_sensor_makes_are_refused() {
        let same = |gid: Gid| set_thread_res_gid(gid, gid, gid);
        assert_eq!(same(getegid()), Ok(()), "it does nothing, and is allowed here");
        assert_eq!(unshare(CloneFlags::empty()), Ok(()));
        behind(&Territory::default(), |fence| {
            assert_eq!(fence.calls, Strength::Whole);
            assert_eq!(same(getegid()), Err(rustix::io::Errno::PERM));
            assert_eq!(unshare(CloneFlags::empty()), Err(nix::errno::Errno::EPERM));
            let error = Command::new("/bin/true").status().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            let text = fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(text.lines().any(|line| line == "Seccomp:\t2"), "{text}");
            assert!(thread::spawn(|| 1).join().is_ok(), "threads can be made");
            std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        });
        assert!(Command::new("/bin/true").status().unwrap().success(), "here nothing is fenced");
    }

    #[test]
    fn a_probe_leaves_no_fence_behind() {
        let fence = Fence::probe(&Territory::default()).unwrap();
        assert_eq!(fence.calls, Strength::Whole);
        assert!(fs::read_dir("/etc").is_ok());
    }
}

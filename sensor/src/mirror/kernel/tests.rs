//! The mirroring programs, run by the kernel itself.
//!
//! Needs root (or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON) and Linux 6.6 with BTF; elsewhere each test says that it was
//! skipped.

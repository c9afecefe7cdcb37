//! What the process forbids itself before it reads a key: to be dumped, to be read by other programs of its account,
//! and to make files that others can read.
//!
//! `kernel.yama.ptrace_scope` and `ulimit -c` do the same on many machines, but not on all, and nobody looks.

use std::io;

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};

/// Keeps memory and new files to this process and its account; for every command, as the first thing.
///
/// A process that is not dumpable (`PR_SET_DUMPABLE`) leaves no core file, not even through a handler in
/// `kernel.core_pattern`, which is not bound by the limit; nor can another program of the same account attach to it, or
/// read `/proc/PID/mem` and `environ`. A takeover is not in its way: sockets are sent by who has them
/// ([`crate::takeover`]), and not fetched out of the other process (`pidfd_getfd`), which would be refused.
///
/// # Errors
/// What the system says; memory may then be read.
pub(crate) fn begin() -> io::Result<()> {
    // What others are meant to have is given to them explicitly: Unix sockets and the access log to their group. The
    // umask of whoever starts the process then changes nothing.
    umask(Mode::RWXG | Mode::RWXO);
    // What protects most first, and each whatever becomes of the other.
    let dumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let limited = limit_core(|_| Some(0));
    dumpable?;
    limited
}

/// Takes the first half of that back, to find a defect with a core file or a debugger (`process.core_dumps`).
///
/// # Errors
/// What the system says.
pub(crate) fn allow_core_dumps() -> io::Result<()> {
    let dumpable = set_dumpable_behavior(DumpableBehavior::Dumpable);
    let limited = limit_core(|most| most);
    dumpable?;
    limited
}

/// Sets the soft limit on core files; the hard one, which could not be raised again, stays.
fn limit_core(to: impl FnOnce(Option<u64>) -> Option<u64>) -> io::Result<()> {
    let maximum = getrlimit(Resource::Core).maximum;
    let current = to(maximum);
    Ok(setrlimit(Resource::Core, Rlimit { current, maximum })?)
}

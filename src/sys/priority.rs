//! Which threads go first. Called by those that are in nobody's way.

/// As niceness.
const BEHIND_OTHERS: libc::c_int = 10;

/// The shortest that Linux gives. Most turns of our threads are shorter.
const SHORT_TURN_NS: u64 = 100_000;

/// The calling thread, and those that it starts from now on, run when the others leave a core free. A refusal changes
/// nothing.
pub fn yield_to_others() {
    // SAFETY: a system call on numbers alone; on Linux, process 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, BEHIND_OTHERS) };
}

/// The calling thread asks for little of a core at a time, and has its turn sooner for it: where others keep the cores busy,
/// one that wakes for a request need not wait until they have used up theirs (EEVDF; before Linux 6.12 it changes nothing).
/// Its share of the core, niceness and class are what they were. Threads that it starts do likewise. A refusal changes
/// nothing.
pub fn take_short_turns() {
    // SAFETY: system calls on numbers alone; 0 is the calling thread.
    let (policy, nice) = unsafe { (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0)) };
    if policy != libc::SCHED_OTHER {
        return;
    }
    let wanted = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: policy as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: SHORT_TURN_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the attributes live until the call returns, and their size is said in them.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0) };
}

//! What a process takes of the machine, as the kernel counts it.

use std::time::Instant;

/// What some work took.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) seconds: f64,
    /// Seconds of processor time.
    pub(crate) cpu: Option<f64>,
    /// Bytes by which its memory was ever larger than when it was idle.
    pub(crate) grown: Option<u64>,
}

/// Measures a process while `work` is done.
pub(crate) fn measured(pid: u32, idle: u64, work: impl FnOnce()) -> Usage {
    // From here on the peak is a new one.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let (before, began) = (cpu(pid), Instant::now());
    work();
    let seconds = began.elapsed().as_secs_f64();
    let grown = (status(pid, "VmHWM:") * 1024).saturating_sub(idle);
    Usage { seconds, cpu: Some(cpu(pid) - before), grown: Some(grown) }
}

/// Bytes of memory that it has now.
pub(crate) fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:") * 1024
}

pub(crate) fn threads(pid: u32) -> u64 {
    status(pid, "Threads:")
}

fn status(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn cpu(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text[text.rfind(')').unwrap() + 2..].split(' ').collect();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) as f64 / 100.0
}

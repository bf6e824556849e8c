//! What this process, or one that it has started, has used so far, from `/proc`.

use crate::Failure;

/// User and system time, in seconds.
///
/// # Errors
/// Where `/proc` is not that of Linux.
pub fn cpu_seconds() -> Result<f64, Failure> {
    // Linux counts in hundredths of a second on every machine that Rust runs on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in brackets may hold blanks; the numbers start behind it with the third field.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .ok_or("a short line")?
            .parse::<f64>()
            .map_err(Failure::from)
    };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// The memory that is resident now, in MiB.
///
/// # Errors
/// Where `/proc` is not that of Linux.
pub fn resident_mib() -> Result<f64, Failure> {
    status_mib("VmRSS:")
}

/// The most memory that was ever resident, in MiB.
///
/// # Errors
/// Where `/proc` is not that of Linux.
pub fn peak_resident_mib() -> Result<f64, Failure> {
    status_mib("VmHWM:")
}

/// The most memory that another process of this user ever had resident, in MiB.
///
/// # Errors
/// Where `/proc` is not that of Linux, and when there is no such process.
pub fn peak_resident_mib_of(process: u32) -> Result<f64, Failure> {
    status_of(&process.to_string(), "VmHWM:")
}

fn status_mib(key: &str) -> Result<f64, Failure> {
    status_of("self", key)
}

fn status_of(process: &str, key: &str) -> Result<f64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .ok_or("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

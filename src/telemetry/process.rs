//! What the program itself takes, under the names that Prometheus' clients share. Linux' `/proc`.

use std::fmt::{self, Write};

/// Of every Linux, whatever the kernel's own tick is (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// `process_cpu_seconds_total` and `process_resident_memory_bytes`; nothing where there is no `/proc`.
///
/// # Errors
/// Formatting fails.
pub(super) fn write(out: &mut String) -> fmt::Result {
    if let Some(seconds) = std::fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu)
    {
        out.write_str("# HELP process_cpu_seconds User and system CPU time.\n# TYPE process_cpu_seconds counter\n# UNIT process_cpu_seconds seconds\n")?;
        writeln!(out, "process_cpu_seconds_total {seconds}")?;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(octets) = resident(&status) {
        out.write_str("# HELP process_resident_memory_bytes Resident memory.\n# TYPE process_resident_memory_bytes gauge\n# UNIT process_resident_memory_bytes bytes\n")?;
        writeln!(out, "process_resident_memory_bytes {octets}")?;
    }
    Ok(())
}

/// Fields 14 and 15 of proc_pid_stat(5), counted from behind the program's name, which may hold anything.
fn cpu(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let stat = "7 (a) (b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 12 0 0";
        assert_eq!(cpu(stat), Some(2.0));
        assert_eq!(cpu("7 (a"), None);
    }

    #[test]
    fn this_program_takes_something() {
        let mut out = String::new();
        write(&mut out).unwrap();
        assert!(out.contains("\nprocess_resident_memory_bytes "), "{out}");
        assert_eq!(resident("VmRSS:\t    12 kB\n"), Some(12_288));
    }
}

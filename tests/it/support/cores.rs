//! Which core somebody runs on, and when: by taskset and chrt, of util-linux.
//!
//! Attackers, program, backends and whoever measures share a machine here. They would measure how it divides itself among
//! them, so where `CERTMAP_PROGRAM` names a program to be attacked, that has one core for itself, and attackers run when
//! nobody else on theirs wants to. They are still more than it can serve, as if each of them were a machine.

use std::ffi::OsString;
use std::process::Command;

use super::run;

const OF_THE_PROGRAM: &str = "0";
const OF_THE_OTHERS: &str = "1";

/// The program that is set apart, if one is: as it is shipped, and with nothing else at work meanwhile.
pub(crate) fn program_apart() -> Option<OsString> {
    std::env::var_os("CERTMAP_PROGRAM")
}

/// What starts the program under test.
pub(crate) fn program() -> Command {
    let Some(program) = program_apart() else {
        return Command::new(env!("CARGO_BIN_EXE_certmap"));
    };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", OF_THE_PROGRAM]).arg(program);
    command
}

/// This thread leaves the program its core, as those do that it begins.
pub(crate) fn leave_one() {
    if program_apart().is_some() {
        of_this_thread("taskset", &["--cpu-list", "--pid", OF_THE_OTHERS]);
    }
}

/// This thread, and those that it begins, run when nobody else wants to.
pub(crate) fn stand_back() {
    if program_apart().is_some() {
        of_this_thread("chrt", &["--idle", "--pid", "0"]);
    }
}

fn of_this_thread(program: &str, arguments: &[&str]) {
    let this = std::fs::read_link("/proc/thread-self").unwrap();
    let (done, text) = run(Command::new(program).args(arguments).arg(this.file_name().unwrap()));
    assert!(done, "{program}: {text}");
}

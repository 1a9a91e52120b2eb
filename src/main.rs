//! The program: arguments and runtimes.
#![expect(clippy::print_stdout, reason = "the command's output")]

fn main() {
    println!("{}", certmap::api::crd_yaml());
}

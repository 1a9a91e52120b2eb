//! What can be the name of a user or a group, where others bring it in.

/// As many as an account's name may have.
const LONGEST: usize = 256;

/// Whether nothing in a name could be mistaken: it is not empty, not too long, without space at its ends and without
/// control characters.
pub(super) fn is_name(name: &str) -> bool {
    let whole = !name.is_empty() && name.trim() == name && name.len() <= 4 * LONGEST;
    whole && name.chars().count() <= LONGEST && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_nothing_in_it_that_could_be_mistaken() {
        for name in ["alice", "CORP\\Jürgen", "Doe, John (HR)", &"x".repeat(256)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", " ", " alice", "alice\u{a0}", "a\nb", "a\0", "a\u{85}b", &"x".repeat(257)]
        {
            assert!(!is_name(name), "{name:?}");
        }
    }
}

//! `matchCriteria`: `*` stands for any run of characters, `?` for one, everything else for itself, over the whole value.

/// A compiled criterion.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern {
    text: Box<str>,
    case_sensitive: bool,
    kind: Kind,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Kind {
    /// No wildcard; folded where case does not matter.
    Literal(Box<str>),
    Glob(Box<[Token]>),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token {
    One,
    Run,
    Char(char),
}

impl Pattern {
    /// Compiles a criterion; every text is one.
    #[must_use]
    pub fn new(text: &str, case_sensitive: bool) -> Self {
        let folded = |c: char| if case_sensitive { c } else { fold(c) };
        let token = |c| match c {
            '*' => Token::Run,
            '?' => Token::One,
            c => Token::Char(folded(c)),
        };
        let kind = if text.contains(['*', '?']) {
            let mut tokens: Vec<Token> = text.chars().map(token).collect();
            tokens.dedup_by(|a, b| *a == Token::Run && *b == Token::Run);
            Kind::Glob(tokens.into())
        } else {
            Kind::Literal(text.chars().map(folded).collect())
        };
        Self { text: text.into(), case_sensitive, kind }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether upper and lower case differ.
    #[must_use]
    pub fn is_case_sensitive(&self) -> bool {
        self.case_sensitive
    }

    /// The only value that matches (folded where case does not matter); none where there are wildcards.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        match &self.kind {
            Kind::Literal(literal) => Some(literal),
            Kind::Glob(_) => None,
        }
    }

    /// Whether the whole value matches. Time is at most the product of both lengths.
    #[must_use]
    pub fn matches(&self, value: &str) -> bool {
        match &self.kind {
            Kind::Literal(literal) if self.case_sensitive => **literal == *value,
            Kind::Literal(literal) => literal.chars().eq(value.chars().map(fold)),
            Kind::Glob(tokens) => self.glob(tokens, value),
        }
    }

    /// Going back is only ever needed to the last run: an earlier one cannot help where the last could not.
    fn glob(&self, mut tokens: &[Token], value: &str) -> bool {
        let mut rest = value.chars();
        let mut last_run = None;
        loop {
            let mut ahead = rest.clone();
            match (tokens.split_first(), ahead.next()) {
                (Some((Token::Run, after)), _) => {
                    tokens = after;
                    last_run = Some((after, rest.clone()));
                }
                (Some((token, after)), Some(c)) if self.is_one(*token, c) => {
                    (tokens, rest) = (after, ahead);
                }
                (None, None) => return true,
                _ => {
                    let Some((after, from)) = &mut last_run else { return false };
                    if from.next().is_none() {
                        return false;
                    }
                    (tokens, rest) = (*after, from.clone());
                }
            }
        }
    }

    fn is_one(&self, token: Token, c: char) -> bool {
        match token {
            Token::Run => false,
            Token::One => true,
            Token::Char(expected) => expected == if self.case_sensitive { c } else { fold(c) },
        }
    }
}

/// Folds case one character for one, so that `?` counts the same characters either way.
#[must_use]
pub(super) fn fold(c: char) -> char {
    let mut lower = c.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(single), None) => single,
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(pattern: &[char], value: &[char]) -> bool {
        match (pattern.split_first(), value.split_first()) {
            (None, None) => true,
            (Some(('*', after)), _) => {
                (0..=value.len()).any(|skipped| naive(after, &value[skipped..]))
            }
            (Some(('?', after)), Some((_, rest))) => naive(after, rest),
            (Some((p, after)), Some((v, rest))) => p == v && naive(after, rest),
            _ => false,
        }
    }

    #[test]
    fn the_whole_value_is_compared() {
        for (pattern, value, expected) in [
            ("ZeroSSL", "ZeroSSL", true),
            ("ZeroSSL", "ZeroSSL Inc", false),
            ("Zero*", "ZeroSSL", true),
            ("*SSL", "ZeroSSL", true),
            ("*", "", true),
            ("", "", true),
            ("?", "", false),
            ("a?c", "abc", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXcXb", false),
            ("*.example.com", "a.b.example.com", true),
            ("**", "anything", true),
        ] {
            assert_eq!(Pattern::new(pattern, true).matches(value), expected, "{pattern} {value}");
        }
    }

    #[test]
    fn case_is_folded_where_it_does_not_matter() {
        assert!(Pattern::new("ÄRGER*", false).matches("ärgernis"));
        assert!(Pattern::new("zerossl", false).matches("ZeroSSL"));
        assert!(!Pattern::new("zerossl", true).matches("ZeroSSL"));
        assert!(!Pattern::new("straße", false).matches("STRASSE"));
    }

    #[test]
    fn many_runs_do_not_explode() {
        let pattern = Pattern::new(&"a*".repeat(500), true);
        assert!(!pattern.matches(&format!("{}b", "a".repeat(400))));
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?]{0,9}", value in "[ab]{0,10}") {
            let (p, v): (Vec<char>, Vec<char>) = (pattern.chars().collect(), value.chars().collect());
            prop_assert_eq!(Pattern::new(&pattern, true).matches(&value), naive(&p, &v));
            prop_assert_eq!(Pattern::new(&pattern, false).matches(&value.to_uppercase()), naive(&p, &v));
        }

        #[test]
        fn any_text_matches_itself_without_wildcards(value in "\\PC{0,20}") {
            if !value.contains(['*', '?']) {
                prop_assert!(Pattern::new(&value, true).matches(&value));
                prop_assert!(Pattern::new(&value, false).matches(&value));
            }
        }
    }
}

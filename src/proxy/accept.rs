//! What a client would rather have (RFC 9110, 12.4.2 and 12.5.1).

use http::header::{self, HeaderMap, HeaderValue};

/// In thousandths.
pub(super) type Quality = u16;

/// What a client accepts; made out only where it is answered with a page.
pub(super) struct Accept {
    first: Option<HeaderValue>,
    /// Hardly anybody sends more.
    others: Vec<HeaderValue>,
}

impl Accept {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut fields = headers.get_all(header::ACCEPT).iter().cloned();
        Self { first: fields.next(), others: fields.collect() }
    }

    pub(super) fn prefers_json(&self) -> bool {
        prefers(&self.first.iter().chain(&self.others))
    }
}

pub(super) fn prefers_json(headers: &HeaderMap) -> bool {
    Accept::of(headers).prefers_json()
}

/// By the quality of each; a page where both are equal.
fn prefers<'v>(accept: &(impl Iterator<Item = &'v HeaderValue> + Clone)) -> bool {
    let json = ["application/problem+json", "application/json", "application/*", "*/*"];
    quality_of(accept, &json) > quality_of(accept, &["text/html", "text/*", "*/*"])
}

/// The quality of the first of the ranges that is named.
fn quality_of<'v>(
    accept: &(impl Iterator<Item = &'v HeaderValue> + Clone),
    ranges: &[&str],
) -> Quality {
    let named = |range: &&str| {
        let found = members(accept.clone()).find(|(name, _)| name.eq_ignore_ascii_case(range));
        found.map(|(_, quality)| quality)
    };
    ranges.iter().find_map(named).unwrap_or(0)
}

/// The members of a list in one field or several, each with its quality; what cannot be read is passed over.
pub(super) fn members<'v>(
    fields: impl Iterator<Item = &'v HeaderValue>,
) -> impl Iterator<Item = (&'v str, Quality)> {
    fields
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(member)
}

fn member(text: &str) -> Option<(&str, Quality)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let quality = parts
        .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")).map(quality));
    Some((name, quality.unwrap_or(Some(1000))?))
}

/// RFC 9110, 12.4.2: at most three digits after the point, and not more than 1.
fn quality(text: &str) -> Option<Quality> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 {
        return None;
    }
    let digits = part.bytes().chain(std::iter::repeat(b'0')).take(3);
    let digit = |octet: u8| octet.is_ascii_digit().then(|| Quality::from(octet - b'0'));
    let thousandths = digits.map(digit).try_fold(0, |sum, digit| Some(sum * 10 + digit?))?;
    match (whole, thousandths) {
        ("0", _) => Some(thousandths),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_a_page_and_programs_problem_details() {
        for (accept, json) in [
            (&[""][..], false),
            (&["*/*"], false),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], false),
            (&["application/json"], true),
            (&["application/problem+json, text/html;q=0.5"], true),
            (&["text/html, application/json;q=0.9"], false),
            (&["text/html;q=0.5", "application/json;q=0.75"], true),
            (&["text/html;level=1;Q=0.5", "image/png", "application/json;q=0.25"], false),
            (&["text/html;q=none, application/*"], true),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, HeaderValue::from_static(value));
            }
            assert_eq!(prefers_json(&headers), json, "{accept:?}");
            assert_eq!(Accept::of(&headers).prefers_json(), json, "{accept:?}");
        }
    }

    #[test]
    fn a_quality_has_three_digits_at_most_and_is_not_more_than_one() {
        for (text, expected) in [
            ("1", Some(1000)),
            ("1.000", Some(1000)),
            ("0", Some(0)),
            ("0.", Some(0)),
            ("0.5", Some(500)),
            ("0.123", Some(123)),
            ("0.1234", None),
            ("1.001", None),
            (".5", None),
            ("0.x", None),
            ("", None),
        ] {
            assert_eq!(quality(text), expected, "{text}");
        }
    }
}
